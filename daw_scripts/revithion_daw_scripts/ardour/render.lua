-- Makes a session contain what a plan says, in one step that can be undone.

local M = ...
local common, problem, clips, layout, ours = M.common, M.problem, M.clips, M.layout, M.ours
local R = {}

local NO_GROUP = PBD.GroupControlDisposition.NoGroup

-- What of the source is muted for a plan: its track if all that is heard of it has stems, else those regions.
local function muting(plan)
	local source = common.get(plan, "source")
	local route = source and source.mute and ours.route_by_id(source.track_id)
	if not route or route:to_track():isnil() then return nil end
	local items, regions = {}, {}
	for _, track in ipairs(plan.tracks) do
		for _, clip in ipairs(track.clips) do items[clip.item] = true end
	end
	for _, region in ipairs(ours.regions_of(route)) do
		if items[ours.id_of(region)] then
			regions[#regions + 1] = region
		elseif not items[""] and not region:muted() then -- without items, the stems are somewhere else, as a whole
			return route, "regions", regions
		end
	end
	return route, "track", {}
end

local function planned(plan, role, key)
	for _, strip in ipairs(role == "track" and plan.tracks or plan.buses) do
		if strip.key == key then return strip end
	end
end

-- The strips that other plans have made from the same source: two sets of it would sound together, twice as loud.
local function superseded(plan)
	local source, sets, found = common.get(plan, "source"), {}, {}
	if not source or plan.partial then return found end
	for _, mark in ipairs(ours.all()) do
		if mark.source == source.track_id and mark.identity ~= plan.identity then sets[mark.identity] = true end
	end
	for _, mark in ipairs(ours.all()) do
		if sets[mark.identity] and not mark.undone then found[#found + 1] = mark end
	end
	return found
end

-- Whether the session is as the plan says already.
local function is_done(plan, strips)
	for _, bus in ipairs(plan.buses) do
		if not ours.find(strips, "bus", bus.key) then return false end
	end
	for _, track in ipairs(plan.tracks) do
		local mark = ours.find(strips, "track", track.key)
		if not mark or mark.undone or mark.digest ~= clips.digest(track) then return false end
		local regions, wanted = ours.regions_of(mark.route), {}
		if #regions ~= #track.clips then return false end
		for _, clip in ipairs(track.clips) do wanted[clips.position_samples(clip.position, plan)] = true end
		for _, region in ipairs(regions) do
			if not wanted[region:position():samples()] then return false end
		end
	end
	if not plan.partial then
		for _, mark in ipairs(strips) do
			if not mark.undone and not planned(plan, mark.role, mark.key) then return false end
		end
	end
	if #superseded(plan) > 0 then return false end
	local route, what, regions = muting(plan)
	for _, region in ipairs(regions or {}) do
		if not region:muted() then return false end
	end
	return not (what == "track" and not route:mute_control():muted())
end

-- Puts the regions on their tracks, in one step of undo. The imports come before: each is a step of its own, in which nothing
-- happens that can be seen, and Ardour 7 aborts commands that are within one another.
local function place(plan, tracks, stale, silent, report)
	local wholes, todo = {}, {}
	for _, track in ipairs(plan.tracks) do
		local mark = tracks[track.key]
		if mark.digest ~= clips.digest(track) or mark.undone or #ours.regions_of(mark.route) ~= #track.clips then
			local placed = {}
			for index, clip in ipairs(track.clips) do
				if clip.play_rate ~= 1 then problem("Ardour has no play rate for clips") end
				wholes[clip.file] = wholes[clip.file] or clips.import_file(clip.file)
				placed[index] = { clips.make_region(clip, wholes[clip.file]), clips.position_samples(clip.position, plan) }
			end
			todo[#todo + 1] = { track = track, mark = mark, placed = placed }
		end
	end
	Session:begin_reversible_command("Separate to stems")
	for _, mark in ipairs(stale) do
		if mark.role == "track" then ours.set_regions(mark.route, {}) end
	end
	for _, item in ipairs(todo) do ours.set_regions(item.mark.route, item.placed) end
	ours.set_muted(silent, true)
	if not Session:abort_empty_reversible_command() then Session:commit_reversible_command(nil) end
	for _, item in ipairs(todo) do
		for _, line in ipairs(report) do
			if line.role == "track" and line.key == item.track.key and line.outcome == "unchanged" then
				line.outcome = "replaced"
			end
		end
	end
end

-- Has the session's range hold all clips: exports go as far as it does.
local function cover(plan, tracks)
	local first, last, views = math.huge, 0, ArdourUI.SelectionList()
	for _, track in ipairs(plan.tracks) do
		for _, region in ipairs(ours.regions_of(tracks[track.key].route)) do
			local from = region:position():samples()
			first, last = math.min(first, from), math.max(last, from + region:length():samples())
			views:push_back(Editor:regionview_from_region(region))
		end
	end
	local range = Session:locations():session_range_location()
	if not range then -- there is no call that makes one, but an action for what is selected
		Editor:set_selection(views, ArdourUI.SelectionOp.Set)
		Editor:access_action("Editor", "set-session-from-edit-range")
		Editor:set_selection(ArdourUI.SelectionList(), ArdourUI.SelectionOp.Set)
		range = Session:locations():session_range_location()
		first = 0 -- a song begins where the session does
	end
	if not range then return end
	if range:start():samples() > first then range:set_start(Temporal.timepos_t(first), true) end
	if range:_end():samples() < last then range:set_end(Temporal.timepos_t(last), true) end
end

-- Makes the session contain what the plan says; returns what became of each strip.
function R.render(plan)
	local report = {}
	clips.settle(plan)
	local strips = ours.all(plan.identity)
	if is_done(plan, strips) then
		for _, list in ipairs({ { "track", plan.tracks }, { "bus", plan.buses } }) do
			for _, strip in ipairs(list[2]) do
				local mark = ours.find(strips, list[1], strip.key)
				report[#report + 1] = { role = list[1], key = strip.key, name = mark.route:name(), outcome = "unchanged" }
			end
		end
		return report
	end
	local config = ARDOUR.config()
	local connect = config:get_output_auto_connect()
	config:set_output_auto_connect(0) -- its thread would connect new strips to the master behind our back
	local ok, why = pcall(function()
		local tracks, buses, new
		strips, tracks, buses, new = layout.strips(plan, report)
		layout.join_group(plan, tracks, buses, new)
		local stale = superseded(plan)
		if not plan.partial then
			for _, mark in ipairs(strips) do
				if not mark.undone and not planned(plan, mark.role, mark.key) then stale[#stale + 1] = mark end
			end
		end
		local source, what, silent = muting(plan)
		place(plan, tracks, stale, silent or {}, report)
		cover(plan, tracks)
		if what == "track" then source:mute_control():set_value(1, NO_GROUP) end
		for _, track in ipairs(plan.tracks) do
			local mark = tracks[track.key]
			mark.digest, mark.undone = clips.digest(track), false
			mark.source, mark.muted = source and ours.id_of(source) or "-", what or "-"
			ours.write(mark.route, mark)
		end
		for _, mark in pairs(buses) do
			mark.undone = false
			ours.write(mark.route, mark)
		end
		for _, mark in ipairs(stale) do
			ours.put_away(mark)
			report[#report + 1] = { role = mark.role, key = mark.key, name = mark.route:name(), outcome = "removed" }
		end
		ours.remove_idle_vcas(stale)
	end)
	ARDOUR.LuaAPI.usleep(100000) -- the thread that connects looks at the setting when it gets to a new strip
	config:set_output_auto_connect(connect)
	if not ok then error(why, 0) end
	Session:save_state("", false, false, false, false, false)
	return report
end

return R
