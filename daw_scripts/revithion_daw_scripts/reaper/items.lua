-- Items of our tracks. Where the item is still there whose source was separated, it is copied and gets the stem as its
-- source: so trim, offset, fades, envelopes, stretch markers and rate are the item's own. Otherwise a plain item is made.

local M = ...
local common, tracks = M.common, M.tracks
local I = {}

local EXT = tracks.EXT
local NEAR = 1e-9
local ITEM_VALUES = {
	"D_POSITION", "D_LENGTH", "D_VOL", "B_LOOPSRC", "D_SNAPOFFSET",
	"D_FADEINLEN", "D_FADEOUTLEN", "D_FADEINLEN_AUTO", "D_FADEOUTLEN_AUTO", "C_FADEINSHAPE", "C_FADEOUTSHAPE",
}
local TAKE_VALUES = { "D_STARTOFFS", "D_PLAYRATE", "D_PITCH", "B_PPITCH", "D_VOL", "D_PAN", "I_CHANMODE", "I_PITCHMODE" }
local CROP_TO_ACTIVE_TAKE, BUILD_MISSING_PEAKS = 40131, 40047

function I.guid(item)
	local _, guid = reaper.GetSetMediaItemInfo_String(item, "GUID", "", false)
	return guid
end

function I.by_guid(project)
	local found = {}
	for index = 0, reaper.CountMediaItems(project) - 1 do
		local item = reaper.GetMediaItem(project, index)
		found[I.guid(item)] = item
	end
	return found
end

-- The file under a take's source, whatever is wrapped around it; and the section of it, if it is one.
function I.root(source)
	local section
	while true do
		local is_section, offset, length, reversed = reaper.PCM_Source_GetSectionInfo(source)
		if is_section then
			section = {
				offset = (section and section.offset or 0) + offset,
				length = section and section.length or length,
				reversed = reversed or (section and section.reversed) or false,
			}
		end
		local parent = reaper.GetMediaSourceParent(source)
		if not parent then return source, section end
		source = parent
	end
end

local function describe(item, take)
	local values = {}
	for _, name in ipairs(ITEM_VALUES) do values[name] = reaper.GetMediaItemInfo_Value(item, name) end
	for _, name in ipairs(TAKE_VALUES) do values["take " .. name] = reaper.GetMediaItemTakeInfo_Value(take, name) end
	local markers = reaper.GetTakeNumStretchMarkers(take)
	values["stretch markers"] = markers
	for index = 0, markers - 1 do
		local _, position, source_position = reaper.GetTakeStretchMarker(take, index)
		values["marker " .. index], values["marked " .. index] = position, source_position
	end
	return values
end

-- Seconds from the start of the project, by its own tempo map. Numbers that only the ruler shows (a start time or a
-- first bar that the user has set for it) do not count.
function I.seconds(project, position, project_rate)
	local value, unit = position.value, position.unit
	if unit == "frames" then return value / project_rate end
	if unit == "beats" then return reaper.TimeMap2_QNToTime(project, value) end
	if unit == "bars" then
		local measure = math.floor(value) - 1
		local _, first, last = reaper.TimeMap_GetMeasureInfo(project, measure)
		return reaper.TimeMap2_QNToTime(project, first + (value - 1 - measure) * (last - first))
	end
	if unit == "selection" then
		local first
		for index = 0, reaper.CountSelectedMediaItems(project) - 1 do
			local item = reaper.GetSelectedMediaItem(project, index)
			first = math.min(first or math.huge, reaper.GetMediaItemInfo_Value(item, "D_POSITION"))
		end
		return first and first + value -- nil: nothing is selected
	end
	return value
end

-- What is to stand on a track for a clip of the plan.
function I.plan(project, clip, project_rate, present)
	local wanted = { file = clip.file, sha256 = clip.sha256, original = present[clip.item] }
	local take = wanted.original and reaper.GetActiveTake(wanted.original)
	if take then
		local _, section = I.root(reaper.GetMediaItemTake_Source(take))
		wanted.values = describe(wanted.original, take)
		wanted.values["take D_STARTOFFS"] = wanted.values["take D_STARTOFFS"] + (section and section.offset or 0)
	else
		wanted.original = nil
		wanted.values = {
			D_POSITION = I.seconds(project, clip.position, project_rate),
			D_LENGTH = clip.frames / clip.sample_rate / clip.play_rate,
			D_VOL = common.gain(clip.gain_db),
			B_LOOPSRC = 0,
			D_FADEINLEN = 0, -- fades would break the sum
			D_FADEOUTLEN = 0,
			D_FADEINLEN_AUTO = -1,
			D_FADEOUTLEN_AUTO = -1,
			["take D_STARTOFFS"] = clip.start_frame / clip.sample_rate,
			["take D_PLAYRATE"] = clip.play_rate,
			["take B_PPITCH"] = clip.preserve_pitch and 1 or 0,
		}
	end
	return wanted
end

local function our_items(track)
	local list = {}
	for index = 0, reaper.CountTrackMediaItems(track) - 1 do
		local item = reaper.GetTrackMediaItem(track, index)
		local _, mark = reaper.GetSetMediaItemInfo_String(item, EXT, "", false)
		if mark ~= "" then list[#list + 1] = { item = item, mark = mark } end
	end
	return list
end

local function mark_text(wanted) return "item:" .. wanted.sha256 end

local function is(item, mark, wanted)
	local take = reaper.GetActiveTake(item)
	if not take or mark ~= mark_text(wanted) then return false end
	if reaper.GetMediaSourceFileName((I.root(reaper.GetMediaItemTake_Source(take)))) ~= wanted.file then return false end
	local values = describe(item, take)
	for name, value in pairs(wanted.values) do
		if not values[name] or math.abs(values[name] - value) > NEAR then return false end
	end
	return true
end

-- Whether our items on a track are the wanted ones, no more and no less.
function I.are(track, list)
	local present = our_items(track)
	if #present ~= #list then return false end
	for _, wanted in ipairs(list) do
		local found
		for at, one in ipairs(present) do
			if is(one.item, one.mark, wanted) then found = at end
		end
		if not found then return false end
		table.remove(present, found)
	end
	return true
end

local function crop_to_active_take(project, item)
	local selected = {}
	for index = 0, reaper.CountSelectedMediaItems(project) - 1 do
		selected[#selected + 1] = reaper.GetSelectedMediaItem(project, index)
	end
	for _, other in ipairs(selected) do reaper.SetMediaItemSelected(other, false) end
	reaper.SetMediaItemSelected(item, true)
	reaper.Main_OnCommandEx(CROP_TO_ACTIVE_TAKE, 0, project)
	reaper.SetMediaItemSelected(item, false)
	for _, other in ipairs(selected) do reaper.SetMediaItemSelected(other, true) end
end

local function copy(project, track, original)
	local _, chunk = reaper.GetItemStateChunk(original, "", false)
	-- Two items with the same ids would be one to REAPER. Names can't look like these lines: ids come without quotes.
	chunk = chunk:gsub("(\n%s*%u*ID ){[%x-]+}", function(head) return head .. reaper.genGuid("") end)
	local item = reaper.AddMediaItemToTrack(track)
	if not reaper.SetItemStateChunk(item, chunk, false) then error("REAPER did not take the copy of an item", 0) end
	reaper.SetMediaItemInfo_Value(item, "B_UISEL", 0)
	if reaper.CountTakes(item) > 1 then crop_to_active_take(project, item) end
	return item, reaper.GetActiveTake(item)
end

local function add(project, track, name, wanted)
	local item, take
	if wanted.original then
		item, take = copy(project, track, wanted.original)
	else
		item = reaper.AddMediaItemToTrack(track)
		take = reaper.AddTakeToMediaItem(item)
	end
	local source = reaper.PCM_Source_CreateFromFile(wanted.file)
	if not source then error("REAPER can't read " .. wanted.file, 0) end
	local old = reaper.GetMediaItemTake_Source(take)
	reaper.SetMediaItemTake_Source(take, source)
	if old then reaper.PCM_Source_Destroy(old) end
	for key, value in pairs(wanted.values) do
		local of_take = key:match("^take (.*)")
		if of_take then
			reaper.SetMediaItemTakeInfo_Value(take, of_take, value)
		elseif key:find("^[BCD]_") then
			reaper.SetMediaItemInfo_Value(item, key, value)
		end
	end
	reaper.SetMediaItemInfo_Value(item, "B_MUTE", 0)
	reaper.GetSetMediaItemTakeInfo_String(take, "P_NAME", tracks.one_line(name), true)
	reaper.GetSetMediaItemInfo_String(item, EXT, mark_text(wanted), true)
	reaper.UpdateItemInProject(item)
end

-- Puts the wanted items in the place of ours; what the user has put on the track stays.
function I.replace(project, track, name, list)
	for _, old in ipairs(our_items(track)) do reaper.DeleteTrackMediaItem(track, old.item) end
	for _, wanted in ipairs(list) do add(project, track, name, wanted) end
end

function I.show_peaks(project) reaper.Main_OnCommandEx(BUILD_MISSING_PEAKS, 0, project) end

return I
