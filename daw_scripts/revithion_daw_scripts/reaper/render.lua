-- Makes a project contain what a plan says, in one step that can be undone; nothing is touched where it does already.
--
-- The list of tracks afterwards: the source; a folder with a track for each stem; the buses; the VCA's own track, if the
-- folder can't be it. Stems feed their bus and nothing else; buses feed what the source fed.

local M = ...
local common, tracks, items = M.common, M.tracks, M.items
local R = {}

local get = common.get
local MUTED = "P_EXT:revithion_stems_muted" -- of a track or item that we muted: for whom

local function refusal(message, hint)
	return { code = "daw.refused", message = message, hint = hint or "See the page of REAPER in docs/daw/." }
end

-- What the plan asks for, in the order of the list of tracks.
local function rows_of(plan)
	local rows = {}
	local function row(role, strip, more)
		local one = { role = role, strip = strip, key = strip.key, clips = {}, sends = {}, outcome = "unchanged" }
		for name, value in pairs(more or {}) do one[name] = value end
		rows[#rows + 1] = one
		return one
	end
	local function bare(name, colour) return { key = "", name = name, colour = colour, channels = 2, gain_db = 0.0 } end
	local group, vca = get(plan, "group"), get(plan, "vca") or ""
	local folder = group and group.folder and row("group", bare(group.name, group.colour), { silent = true })
	for _, track in ipairs(plan.tracks) do
		row("track", track, { clips = track.clips, sends = track.sends, output = track.output, inside = folder })
	end
	for _, bus in ipairs(get(plan, "buses") or {}) do row("bus", bus, { sends = bus.sends, output = bus.output }) end
	if vca ~= "" then
		-- A folder whose tracks feed buses carries nothing itself: its fader is free to be the VCA.
		local leader = folder and folder.strip.name == vca and folder
		rows.leader = leader or row("vca", bare(vca, plan.tracks[1].colour), { silent = true })
	end
	return rows
end

local function find_rows(project, plan, rows)
	local by_role, stale, any_strip = {}, {}, false
	for _, mark in ipairs(tracks.ours(project, plan.identity)) do
		local place = mark.role .. ":" .. mark.key
		if not by_role[place] then by_role[place] = mark end -- a copy that the user made is the user's
	end
	for _, row in ipairs(rows) do
		local place = row.role .. ":" .. row.key
		row.track = by_role[place] and by_role[place].track
		if row.track and not row.silent then any_strip = true end
		by_role[place] = nil
	end
	if not plan.partial then
		local source = get(plan, "source")
		if source then stale = tracks.others_from(project, source.track_id, plan.identity) end
		for _, mark in pairs(by_role) do stale[mark.guid] = true end
	end
	if any_strip then -- who has dissolved our folder or VCA does not get it again
		for at = #rows, 1, -1 do
			if rows[at].silent and not rows[at].track then table.remove(rows, at) end
		end
	end
	return stale
end

local function named_track(project, name)
	name = tracks.one_line(name)
	for _, track in ipairs(tracks.all(project)) do
		if tracks.name(track) == name then return track end
	end
end

-- What a row's track feeds: nil if something of it is not there yet.
local function wires_of(project, rows, row)
	local buses, wires = {}, {}
	for _, other in ipairs(rows) do
		if other.role == "bus" then buses[other.key] = other end
	end
	local function wire(role, track, gain_db, pre_fader)
		wires[#wires + 1] =
			{ role = role, track = track, gain_db = gain_db, pre_fader = pre_fader, channels = row.strip.channels }
		return track ~= nil
	end
	local complete = true
	if row.output and row.output ~= "" then
		complete = wire("output", buses[row.output] and buses[row.output].track, 0.0, false)
	end
	for _, send in ipairs(row.sends) do
		local bus = buses[send.bus]
		local target = bus and bus.track
		if not bus then target = named_track(project, send.bus) end
		complete = wire("send", target, send.gain_db, send.pre_fader) and complete
	end
	return complete and wires or nil
end

local function feeds_master(row) return (row.output or "") == "" end

-- How far a row is from the plan: "created" if it is not there, "replaced" if it is another way.
local function judge(project, rows, row)
	if not row.track then return "created" end
	if row.silent then return "unchanged" end
	local wires = wires_of(project, rows, row)
	local is_right = tracks.value(row.track, "I_NCHAN") >= row.strip.channels
		and wires
		and tracks.is_wired(row.track, wires, feeds_master(row))
		and (row.role == "bus" or items.are(row.track, row.wanted))
	return is_right and "unchanged" or "replaced"
end

local function mute_item(item, identity, is_muted)
	reaper.SetMediaItemInfo_Value(item, "B_MUTE", is_muted and 1 or 0)
	reaper.GetSetMediaItemInfo_String(item, MUTED, is_muted and identity or "", true)
end

local function mute_track(track, identity, is_muted)
	tracks.set(track, "B_MUTE", is_muted and 1 or 0)
	reaper.GetSetMediaTrackInfo_String(track, MUTED, is_muted and identity or "", true)
end

-- What is to be done so that the source is not heard twice: its track is muted or, where that has other items too, only
-- the separated ones are. What we had muted for an earlier plan and has no stems any more is heard again.
local function mutes_of(project, plan, present)
	local source, todo = get(plan, "source"), {}
	local track = source and source.mute and select(2, tracks.index(project, source.track_id))
	if not track then return todo end
	local is_silent = tracks.value(track, "B_MUTE") ~= 0
	local _, silent_for = reaper.GetSetMediaTrackInfo_String(track, MUTED, "", false)
	if is_silent and silent_for == "" then return todo end -- the user wants it so
	local separated = {}
	for _, strip in ipairs(plan.tracks) do
		for _, clip in ipairs(strip.clips) do
			if present[clip.item] then separated[clip.item] = true end
		end
	end
	local others = false
	for index = 0, reaper.CountTrackMediaItems(track) - 1 do
		local item = reaper.GetTrackMediaItem(track, index)
		local is_muted = reaper.GetMediaItemInfo_Value(item, "B_MUTE") ~= 0
		local _, muted_for = reaper.GetSetMediaItemInfo_String(item, MUTED, "", false)
		local is_separated = separated[items.guid(item)] or false
		others = others or not is_separated
		if is_separated ~= is_muted and (is_separated or muted_for ~= "") then
			todo[#todo + 1] = function() mute_item(item, plan.identity, is_separated) end
		end
	end
	local is_whole = not (next(separated) and others)
	if is_whole then todo = {} end
	if is_whole ~= is_silent then todo[#todo + 1] = function() mute_track(track, plan.identity, is_whole) end end
	return todo
end

-- Where a new row stands: after the last one of its kind that is there, else after its folder's head or the source.
local function insert_row(project, row, last, source_guid)
	local folder = row.inside and row.inside.track
	if folder then
		local head = tracks.guid(folder)
		local depth = tracks.depth(project, head) + 1
		local before = last.inside and tracks.index(project, last.inside)
		return tracks.insert(project, (before or tracks.index(project, head)) + 1, depth)
	end
	local before = last.outside or (source_guid and tracks.index(project, source_guid) and source_guid)
	if not before then return tracks.insert(project, reaper.CountTracks(project) + 1, 0) end
	return tracks.insert(project, tracks.after(project, before), tracks.depth(project, before))
end

local function stand_in_folder(row)
	local folder = row.inside and row.inside.track
	local parent = reaper.GetParentTrack(row.track)
	return folder and parent and tracks.guid(parent) == tracks.guid(folder)
end

local function apply(project, plan, rows, stale, mutes)
	if next(stale) then tracks.remove(project, stale) end
	local last, source = {}, get(plan, "source")
	for _, row in ipairs(rows) do
		if not row.track then
			row.track = insert_row(project, row, last, source and source.track_id)
			tracks.dress(row.track, row.strip, plan.identity, row.role)
		end
		if stand_in_folder(row) then
			last.inside = tracks.guid(row.track)
		elseif not (row.inside and row.inside.track) then
			last.outside = tracks.guid(row.track)
		end
	end
	for _, row in ipairs(rows) do
		for _, send in ipairs(row.sends) do
			local is_key = false
			for _, other in ipairs(rows) do is_key = is_key or (other.role == "bus" and other.key == send.bus) end
			if not is_key and not named_track(project, send.bus) then
				local track = tracks.insert(project, reaper.CountTracks(project) + 1, 0)
				reaper.GetSetMediaTrackInfo_String(track, "P_NAME", tracks.one_line(send.bus), true)
			end
		end
	end
	local governed = {}
	for _, row in ipairs(rows) do
		if source then tracks.set_source(row.track, source.track_id) end
		if not row.silent and row.outcome ~= "unchanged" then
			local channels = tracks.channels(row.strip.channels)
			if tracks.value(row.track, "I_NCHAN") < channels then tracks.set(row.track, "I_NCHAN", channels) end
			if row.role == "track" and not items.are(row.track, row.wanted) then
				items.replace(project, row.track, row.strip.name, row.wanted)
			end
			tracks.wire(row.track, wires_of(project, rows, row), feeds_master(row))
		end
		if row.role == "bus" and row.outcome == "created" then governed[#governed + 1] = row.track end
	end
	local leader = rows.leader
	if leader and leader.outcome == "created" then
		tracks.govern(project, leader.track, governed)
	elseif leader and leader.track then
		tracks.govern_also(leader.track, governed)
	end
	for _, mute in ipairs(mutes) do mute() end
end

-- Does all of it or, if something fails, nothing.
local function in_one_step(project, label, change)
	local front = reaper.EnumProjects(-1)
	reaper.SelectProjectInstance(project) -- tracks can only be inserted into the project in front
	reaper.PreventUIRefresh(1)
	reaper.Undo_BeginBlock2(project)
	local done, problem = pcall(change)
	reaper.Undo_EndBlock2(project, label, -1)
	if not done then reaper.Undo_DoUndo2(project) end
	reaper.PreventUIRefresh(-1)
	if done then items.show_peaks(project) end
	reaper.SelectProjectInstance(front)
	reaper.TrackList_AdjustWindows(false)
	reaper.UpdateArrange()
	return done, problem
end

-- The plan's strips with what became of them, or nil and an error as in a status.
function R.render(project, plan)
	if type(plan) ~= "table" or type(plan.tracks) ~= "table" or plan.version ~= 1 then
		local hint = "Run `revithion-stems daw install reaper` again."
		return nil, refusal("REAPER was sent something that is no plan of version 1.", hint)
	end
	local rows, present, rate = rows_of(plan), items.by_guid(project), get(plan, "project_rate")
	for _, row in ipairs(rows) do
		row.wanted = {}
		for _, clip in ipairs(row.clips) do
			if not reaper.file_exists(clip.file) then
				return nil, refusal("The stem " .. clip.file .. " is gone.", "Separate once more.")
			end
			rate = rate or clip.sample_rate
			if not items.seconds(project, clip.position, rate) then
				return nil, refusal("No item is selected that the stems could go to.", "Select one.")
			end
			row.wanted[#row.wanted + 1] = items.plan(project, clip, rate, present)
		end
	end
	local stale = find_rows(project, plan, rows)
	local mutes = mutes_of(project, plan, present)
	local changed = next(stale) ~= nil or #mutes > 0
	for _, row in ipairs(rows) do
		row.outcome = judge(project, rows, row)
		changed = changed or row.outcome ~= "unchanged"
	end
	local strips = common.array()
	for _, mark in ipairs(tracks.ours(project, "")) do
		if stale[mark.guid] and (mark.role == "track" or mark.role == "bus") then
			strips[#strips + 1] = { role = mark.role, key = mark.key, name = tracks.name(mark.track), outcome = "removed" }
		end
	end
	if changed then
		local done, problem = in_one_step(project, "Separate to stems: " .. tracks.one_line(plan.title), function()
			apply(project, plan, rows, stale, mutes)
		end)
		if not done then return nil, refusal("REAPER could not do it: " .. tostring(problem)) end
	end
	for at = #rows, 1, -1 do
		local row = rows[at]
		if not row.silent then
			table.insert(strips, 1, { role = row.role, key = row.key, name = tracks.name(row.track), outcome = row.outcome,
				identity = plan.identity })
		end
	end
	return strips
end

return R
