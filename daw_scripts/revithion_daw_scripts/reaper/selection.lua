-- What is selected, as requests to the daemon: one for each track.

local M = ...
local common, tracks, items = M.common, M.tracks, M.items
local S = {}

local MOST_CHANNELS = 8
local MOST_ITEMS = 1000

-- The project in front, its path (empty if it was never saved), and what its mailbox is named after.
function S.project()
	local project, path = reaper.EnumProjects(-1)
	path = path or ""
	return project, path, path ~= "" and path or "unsaved"
end

local function whole(number) return math.floor(number + 0.5) end

-- An item as a request has it, or nil and why it can't be separated.
local function read_item(item)
	local take = reaper.GetActiveTake(item)
	if not take then return nil, "is empty" end
	if reaper.TakeIsMIDI(take) then return nil, "is MIDI" end
	local name = reaper.GetTakeName(take)
	local source, section = items.root(reaper.GetMediaItemTake_Source(take))
	if section and section.reversed then return nil, "plays backwards; glue it first" end
	local file, kind = reaper.GetMediaSourceFileName(source), reaper.GetMediaSourceType(source)
	if kind == "RPP_PROJECT" then return nil, "is a project; render or glue it first" end
	if file == "" then return nil, "has no audio file" end
	if not reaper.file_exists(file) then return nil, "has lost its media file, or is offline: " .. file end
	local rate, channels = reaper.GetMediaSourceSampleRate(source), reaper.GetMediaSourceNumChannels(source)
	local length, is_in_beats = reaper.GetMediaSourceLength(source)
	if is_in_beats or rate < 1 or length <= 0 then return nil, "has no audio in " .. file end
	if channels > MOST_CHANNELS then return nil, ("has %d channels; %d are possible"):format(channels, MOST_CHANNELS) end

	local play_rate = reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE")
	local offset = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS")
	local heard = reaper.GetMediaItemInfo_Value(item, "D_LENGTH") * play_rate
	local loops = reaper.GetMediaItemInfo_Value(item, "B_LOOPSRC") ~= 0
	if section then
		local leaves = offset < 0 or offset + heard > section.length + 1 / rate
		if (loops and leaves) or reaper.GetTakeNumStretchMarkers(take) > 0 then
			return nil, "loops or stretches a section of a file; glue it first"
		end
		offset = offset + section.offset
	end
	local total, start, frames = whole(length * rate), whole(offset * rate), whole(heard * rate)
	local position = reaper.GetMediaItemInfo_Value(item, "D_POSITION")
	if loops then
		start = start % total
	elseif start < 0 then -- the item begins before its source does
		position = position - start / rate / play_rate
		start, frames = 0, frames + start
	end
	frames = math.min(frames, total - start)
	if frames < 1 then return nil, "lies outside its file" end

	local heard_as = common.array()
	for channel = 0, channels - 1 do heard_as[channel + 1] = { path = file, channel = channel } end
	local item_gain = reaper.GetMediaItemInfo_Value(item, "D_VOL")
	return {
		channels = heard_as,
		start_frame = start,
		frames = frames,
		position = { value = math.max(0, position), unit = "seconds" },
		play_rate = play_rate,
		preserve_pitch = reaper.GetMediaItemTakeInfo_Value(take, "B_PPITCH") ~= 0,
		gain_db = tracks.decibels(item_gain * reaper.GetMediaItemTakeInfo_Value(take, "D_VOL")),
		item = items.guid(item),
		name = name,
	}
end

-- The selected items, or else those of the selected tracks.
local function selected_items(project)
	local list = {}
	for index = 0, reaper.CountSelectedMediaItems(project) - 1 do
		list[#list + 1] = reaper.GetSelectedMediaItem(project, index)
	end
	if #list > 0 then return list, true end
	for index = 0, reaper.CountSelectedTracks(project) - 1 do
		local track = reaper.GetSelectedTrack(project, index)
		for at = 0, reaper.CountTrackMediaItems(track) - 1 do list[#list + 1] = reaper.GetTrackMediaItem(track, at) end
	end
	return list, false
end

local function project_rate(project)
	if reaper.GetSetProjectInfo(project, "PROJECT_SRATE_USE", 0, false) == 0 then return common.null end
	return whole(reaper.GetSetProjectInfo(project, "PROJECT_SRATE", 0, false))
end

-- Requests, and what is left out and why (lines for people). `options` has preset, model and align_to.
function S.requests(project, project_path, options)
	local by_track, requests, left_out = {}, {}, {}
	local list, are_chosen = selected_items(project)
	local folder = project_path:match("^(.*)[/\\]")
	for _, item in ipairs(list) do
		local one, problem = read_item(item)
		local track = reaper.GetMediaItem_Track(item)
		local guid = tracks.guid(track)
		if one then
			local request = by_track[guid]
			if not request or #request.items >= MOST_ITEMS then
				request = {
					preset = options.preset,
					model = options.model,
					align_to = options.align_to,
					project_rate = project_rate(project),
					folder = folder and folder .. "/stems" or "",
					track = { id = guid, name = tracks.name(track) },
					items = common.array(),
				}
				by_track[guid], requests[#requests + 1] = request, request
			end
			request.items[#request.items + 1] = one
		elseif are_chosen or (problem ~= "is MIDI" and problem ~= "is empty") then
			local take = reaper.GetActiveTake(item)
			local name = take and reaper.GetTakeName(take) or "An item"
			left_out[#left_out + 1] = ("%s (%s) %s."):format(name, tracks.name(track), problem)
		end
	end
	return requests, left_out
end

return S
