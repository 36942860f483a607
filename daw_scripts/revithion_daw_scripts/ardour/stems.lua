-- Stems in Ardour 7 and 8: what the actions and the hook do. Lua 5.3, Ardour's library, and common.lua beside this file.
-- Called with the folder that it is in; returns a table of functions. All of them run on the GUI's thread.

local FOLDER = ...
local common = assert(loadfile(FOLDER .. "/common.lua"))()
local settings, incomplete = common.settings(FOLDER)

local M = {}

local PREFIX = "revithion-stems:"
local LINE = "\n" .. PREFIX:gsub("%-", "%%-")
local UNDONE = "(undone)"
local TITLE = "Stems"
local UNANSWERED_S = 3.0 -- after which a daemon is started
local GIVE_UP_S = 30.0

local NO_GROUP = PBD.GroupControlDisposition.NoGroup

local function now_s() return ARDOUR.LuaAPI.monotonic_time() / 1e6 end

local function show_error(message, hint)
	local text = message .. (hint and hint ~= "" and "\n\n" .. hint or "")
	LuaDialog.Message(TITLE, text, LuaDialog.MessageType.Error, LuaDialog.ButtonType.Close):run()
end

local function problem(message, hint) error({ code = "daw.refused", message = message, hint = hint or "" }, 0) end

local function as_problem(why)
	if type(why) == "table" then return why end
	return { code = "daw.refused", message = tostring(why), hint = "See docs/daw/ardour.md, Troubleshooting." }
end

-- The session's box; another session is another box.
local box
local function current_box()
	if not settings then problem(incomplete) end
	local path = Session:path()
	if not box or box.session_path ~= path then
		box = common.open(settings, "ardour", path)
		box.session_path = path
	end
	return box
end

-- What is ours is marked in the comment of its track or bus, below a line for people:
--   revithion-stems:IDENTITY:ROLE:KEY, with %XX for the bytes of its key that are no letters or digits
--   DIGEST of the clips that it should have; "(undone)" behind it while Undo has taken them away
--   SOURCE, the id of the track that it was made from, and "track" or "regions": what of it was muted; or "-"
--   VCA, the name of the one that governs it, or "-"

local function id_of(object) return object:to_stateful():id():to_s() end

local function read_mark(route)
	local identity, role, key, rest = ("\n" .. route:comment()):match(LINE .. "(%x+):(%a+):([^\n]*)\n?(.*)")
	if not identity then return nil end
	local digest, undone, source, vca = rest:match("^(%x*)([^\n]*)\n?([^\n]*)\n?([^\n]*)")
	return {
		route = route, identity = identity, role = role, digest = digest, undone = undone == " " .. UNDONE,
		key = key:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end),
		source = source:match("^%d+") or "-", muted = source:match("%a+$") or "-", vca = vca ~= "" and vca or "-",
	}
end

local function write_mark(route, mark)
	local above = ("\n" .. route:comment()):match("^(.-)" .. LINE)
	local about = above and above:sub(2) or route:comment()
	if about == "" then about = mark.about or "" end
	local word = mark.key:gsub("[^%w._-]", function(byte) return ("%%%02X"):format(byte:byte()) end)
	local lines = { about, PREFIX .. mark.identity .. ":" .. mark.role .. ":" .. word,
		mark.digest .. (mark.undone and " " .. UNDONE or ""), mark.source == "-" and "-" or mark.source .. " " .. mark.muted, mark.vca }
	route:set_comment(table.concat(lines, "\n"), nil)
end

-- All strips of ours; those of one plan, if its identity is given.
local function our_strips(identity)
	local strips = {}
	for route in Session:get_routes():iter() do
		local mark = read_mark(route)
		if mark and (not identity or mark.identity == identity) then strips[#strips + 1] = mark end
	end
	return strips
end

local function find_strip(strips, role, key)
	for _, mark in ipairs(strips) do
		if mark.role == role and mark.key == key then return mark end
	end
end

local function route_by_id(id)
	for route in Session:get_routes():iter() do
		if id_of(route) == id then return route end
	end
end

local function regions_of(route)
	local regions = {}
	for region in route:to_track():playlist():region_list():iter() do regions[#regions + 1] = region end
	return regions
end

-- Where a region is and what it shows, as text: a source's region and those of its stems have the same.
local function place_of(region)
	return ("%d %d %d"):format(region:position():samples(), region:start():samples(), region:length():samples())
end

-- The places of the regions that have stems, of a track.
local function separated_places(source_id)
	local places = {}
	for _, mark in ipairs(our_strips()) do
		if mark.source == source_id and mark.role == "track" and not mark.undone then
			for _, region in ipairs(regions_of(mark.route)) do places[place_of(region)] = true end
		end
	end
	return places
end

-- What of the source is muted for a plan: its track if all that is heard of it has stems, else those regions.
local function muting(plan)
	local source = common.get(plan, "source")
	local route = source and source.mute and route_by_id(source.track_id)
	if not route or route:to_track():isnil() then return nil end
	local items, regions = {}, {}
	for _, track in ipairs(plan.tracks) do
		for _, clip in ipairs(track.clips) do items[clip.item] = true end
	end
	for _, region in ipairs(regions_of(route)) do
		if items[id_of(region)] then
			regions[#regions + 1] = region
		elseif not items[""] and not region:muted() then -- without items, the stems are somewhere else, as a whole
			return route, "regions", regions
		end
	end
	return route, "track", {}
end

-- Positions: beats and bars by the session's tempo map.

local function bar_ticks(bars)
	local map, ticks = Temporal.TempoMap.read(), 0
	for _ = 2, math.floor(bars) do
		local meter = map:meter_at(Temporal.timepos_t.from_ticks(ticks))
		ticks = ticks + meter:divisions_per_bar() * 4 * 1920 // meter:note_value()
	end
	local meter = map:meter_at(Temporal.timepos_t.from_ticks(ticks))
	local part = (bars - math.floor(bars)) * meter:divisions_per_bar() * 4 * 1920 / meter:note_value()
	return math.floor(ticks + part + 0.5)
end

local function position_samples(position, plan)
	local rate, unit, value = Session:nominal_sample_rate(), position.unit, position.value
	if unit == "frames" then
		local of = common.get(plan, "project_rate") or rate
		return math.floor(value * rate / of + 0.5)
	elseif unit == "beats" then
		return Temporal.timepos_t.from_ticks(math.floor(value * 1920 + 0.5)):samples()
	elseif unit == "bars" then
		return Temporal.timepos_t.from_ticks(bar_ticks(value)):samples()
	end
	return math.floor(value * rate + 0.5)
end

-- Positions that count from what is selected, in samples from the session's start: the selection changes while strips are made.
local function settle(plan)
	local first
	for _, track in ipairs(plan.tracks) do
		for _, clip in ipairs(track.clips) do
			if clip.position.unit == "selection" then
				if not first then
					for region in Editor:get_selection().regions:regionlist():iter() do
						first = math.min(first or math.huge, region:position():samples())
					end
				end
				if not first then problem("No region is selected that the stems could go to.", "Select one.") end
				local from = first / Session:nominal_sample_rate()
				clip.position = { unit = "seconds", value = from + clip.position.value }
			end
		end
	end
end

-- Rendering a plan.

-- Connects every output of `from` to the input of the same number of `to` (it begins again where those end), and to
-- nothing else.
local function wire(from, to)
	local inputs = to:n_inputs():n_audio()
	for index = 0, from:n_outputs():n_audio() - 1 do
		local port = from:output():audio(index)
		port:disconnect_all()
		if inputs > 0 then port:connect(to:input():audio(index % inputs):name()) end
	end
end

-- Imports a file without putting it anywhere; its whole region. Ardour copies it into the session, at the session's rate.
local function import_file(path)
	local before = {}
	for _, region in ARDOUR.RegionFactory.regions():iter() do before[id_of(region)] = true end
	local files = C.StringVector()
	files:push_back(path)
	Editor:do_import(files, Editing.ImportDistinctFiles, Editing.ImportAsRegion, ARDOUR.SrcQuality.SrcBest,
		ARDOUR.MidiTrackNameSource.SMFTrackName, ARDOUR.MidiTempoMapDisposition.SMFTempoIgnore, Temporal.timepos_t(0),
		ARDOUR.PluginInfo(), ARDOUR.Track(), false)
	for _, region in ARDOUR.RegionFactory.regions():iter() do
		if not before[id_of(region)] and region:whole_file() then return region end
	end
	problem("Ardour could not import " .. path, "Is the disk full, or the file gone?")
end

local function clips_digest(track)
	local parts = {}
	for _, clip in ipairs(track.clips) do
		parts[#parts + 1] = ("%s %s %d %d %s %.17g %.17g"):format(clip.sha256, clip.sha256 == "" and clip.file or "",
			clip.start_frame, clip.frames, clip.position.unit, clip.position.value, clip.gain_db)
	end
	return common.digest(table.concat(parts, "\n"))
end

-- The region that a clip asks for, not yet on a track.
local function make_region(clip, whole)
	local rate = Session:nominal_sample_rate()
	local function here(frames) return math.floor(frames * rate / clip.sample_rate + 0.5) end
	local region = ARDOUR.RegionFactory.clone_region(whole, true, false)
	local length = math.min(here(clip.frames), whole:length():samples() - here(clip.start_frame))
	region:set_length(Temporal.timecnt_t(length)) -- first: a start that is past the end is refused
	region:set_start(Temporal.timepos_t(here(clip.start_frame)))
	local audio = region:to_audioregion()
	audio:set_fade_in_active(false) -- Ardour's own 64-sample fades would break the sum
	audio:set_fade_out_active(false)
	audio:set_scale_amplitude(common.gain(clip.gain_db))
	return region
end

local function colour_of(text) return tonumber(text:sub(2), 16) << 8 | 0xff end

local function new_strip(strip, role, order, output_channels)
	local made
	if role == "track" then
		made = Session:new_audio_track(strip.channels, output_channels, nil, 1, strip.name, order,
			ARDOUR.TrackMode.Normal, false, false)
	else
		made = Session:new_audio_route(strip.channels, output_channels, nil, 1, strip.name,
			ARDOUR.PresentationInfo.Flag.AudioBus, order)
	end
	if made:empty() then problem("Ardour could not make " .. strip.name) end
	local route = made:front()
	route:presentation_info_ptr():set_color(colour_of(strip.colour))
	route:gain_control():set_value(common.gain(strip.gain_db), NO_GROUP)
	if strip.muted then route:mute_control():set_value(1, NO_GROUP) end
	-- Panners of more than two channels mix them even at rest: once is enough, on the way to the master.
	if strip.channels > 2 and strip.output ~= "" then route:panner_shell():set_bypassed(true) end
	return route
end

local function find_group(name)
	for group in Session:route_groups():iter() do
		if group:name() == name then return group end
	end
end

local function find_vca(name)
	for vca in Session:vca_manager():vcas():iter() do
		if vca:name() == name then return vca end
	end
end

local function set_shown(route, shown)
	route:set_active(shown, nil)
	local view = Editor:rtav_from_route(route):to_timeaxisview()
	if shown then Editor:show_track_in_display(view, false) else Editor:hide_track_in_display(view, false) end
end

-- Ardour can't undo that a track was made: one that is not wanted any more is hidden and inactive until it is again.
local function put_away(mark)
	mark.undone = true
	write_mark(mark.route, mark)
	set_shown(mark.route, false)
end

-- Removes those VCAs of the strips that govern nothing any more.
local function remove_idle_vcas(marks)
	local used = { ["-"] = true }
	for _, mark in ipairs(our_strips()) do used[mark.vca] = used[mark.vca] or not mark.undone end
	for _, mark in ipairs(marks) do
		local vca = not used[mark.vca] and find_vca(mark.vca)
		if vca then Session:vca_manager():remove_vca(vca) end
	end
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
	for _, mark in ipairs(our_strips()) do
		if mark.source == source.track_id and mark.identity ~= plan.identity then sets[mark.identity] = true end
	end
	for _, mark in ipairs(our_strips()) do
		if sets[mark.identity] and not mark.undone then found[#found + 1] = mark end
	end
	return found
end

-- Whether the session is as the plan says already.
local function is_done(plan, strips)
	for _, bus in ipairs(plan.buses) do
		if not find_strip(strips, "bus", bus.key) then return false end
	end
	for _, track in ipairs(plan.tracks) do
		local mark = find_strip(strips, "track", track.key)
		if not mark or mark.undone or mark.digest ~= clips_digest(track) then return false end
		local regions, wanted = regions_of(mark.route), {}
		if #regions ~= #track.clips then return false end
		for _, clip in ipairs(track.clips) do wanted[position_samples(clip.position, plan)] = true end
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

local function add_sends(strip, route, buses)
	for _, send in ipairs(strip.sends) do
		local target = buses[send.bus] or Session:route_by_name(send.bus)
		if target:isnil() then
			target = new_strip({ channels = strip.channels, name = send.bus, colour = "#999999", gain_db = 0, output = "" }, "bus",
				ARDOUR.PresentationInfo.max_order, math.max(2, strip.channels))
			wire(target, Session:master_out())
		end
		local list = ARDOUR.RouteListPtr()
		list:push_back(route)
		Session:add_internal_sends(target, send.pre_fader and ARDOUR.Placement.PreFader or ARDOUR.Placement.PostFader, list)
		local index = 0
		while not route:nth_send(index):isnil() do index = index + 1 end
		local made = index > 0 and route:nth_send(index - 1):to_internalsend()
		if made and not made:isnil() then made:gain_control():set_value(common.gain(send.gain_db), NO_GROUP) end
	end
end

local function strips_for(plan, report)
	local strips = our_strips(plan.identity)
	local source = common.get(plan, "source")
	local source_route = source and route_by_id(source.track_id)
	local order = ARDOUR.PresentationInfo.max_order
	if source_route then order = source_route:presentation_info_ptr():order() + 1 end
	local master = Session:master_out()
	local buses, tracks = {}, {}
	local function ensure(strip, role, output_channels)
		local mark = find_strip(strips, role, strip.key)
		local made = not mark
		if made then
			local route = new_strip(strip, role, order, output_channels)
			if order ~= ARDOUR.PresentationInfo.max_order then order = order + 1 end
			mark = { route = route, identity = plan.identity, role = role, key = strip.key, digest = "", source = "-",
				muted = "-", vca = "-", about = ("%s of %s"):format(strip.key, plan.title):gsub("%c", " ") }
			write_mark(route, mark)
		elseif mark.undone then
			set_shown(mark.route, true)
		end
		report[#report + 1] = { role = role, key = strip.key, name = mark.route:name(),
			outcome = made and "created" or "unchanged" }
		return mark, made
	end
	local new = {}
	for _, track in ipairs(plan.tracks) do
		local mark, made = ensure(track, "track", track.channels)
		tracks[track.key], new[mark] = mark, made
	end
	for _, bus in ipairs(plan.buses) do
		local mark, made = ensure(bus, "bus", bus.output == "" and math.max(2, bus.channels) or bus.channels)
		buses[bus.key], new[mark] = mark, made
	end
	local bus_routes = {}
	for key, mark in pairs(buses) do bus_routes[key] = mark.route end
	for _, list in ipairs({ plan.tracks, plan.buses }) do
		for _, strip in ipairs(list) do
			local mark = (list == plan.tracks and tracks or buses)[strip.key]
			if new[mark] or list == plan.tracks then
				wire(mark.route, strip.output ~= "" and bus_routes[strip.output] or master)
			end
			if new[mark] then add_sends(strip, mark.route, bus_routes) end
		end
	end
	return strips, tracks, buses, new
end

local function join_vca(name, marks)
	local vca = find_vca(name) or Session:vca_manager():create_vca(1, name):front()
	for _, mark in ipairs(marks) do
		mark.vca = name
		write_mark(mark.route, mark)
		mark.route:to_slavable():assign(vca)
	end
end

local function join_group(plan, tracks, buses, new)
	local planned_group = common.get(plan, "group")
	if planned_group then
		local group = find_group(planned_group.name)
		if not group then
			group = Session:new_route_group(planned_group.name)
			group:set_active(true, nil)
			group:set_rgba(colour_of(planned_group.colour))
			for _, share in ipairs({ "gain", "mute", "solo", "recenable", "color", "route_active", "monitoring" }) do
				group["set_" .. share](group, false)
			end
			group:set_select(true)
		end
		for _, mark in pairs(tracks) do
			if new[mark] then group:add(mark.route) end
		end
	end
	if plan.vca ~= "" then
		local joining = {}
		for _, mark in pairs(next(buses) and buses or tracks) do
			if new[mark] or mark.undone then joining[#joining + 1] = mark end
		end
		if #joining > 0 then join_vca(plan.vca, joining) end
	end
end

-- Has a track hold these regions, each with its position, and no others; within a command that can be undone.
local function set_regions(route, placed)
	local playlist = route:to_track():playlist()
	playlist:to_stateful():clear_changes()
	for _, region in ipairs(regions_of(route)) do playlist:remove_region(region) end
	for _, pair in ipairs(placed) do playlist:add_region(pair[1], Temporal.timepos_t(pair[2]), 1, false) end
	Session:add_stateful_diff_command(playlist:to_statefuldestructible())
end

-- Mutes regions, or lets them be heard; within a command that can be undone.
local function set_muted(regions, muted)
	for _, region in ipairs(regions) do
		region:to_stateful():clear_changes()
		region:set_muted(muted)
		Session:add_stateful_diff_command(region:to_statefuldestructible())
	end
end

-- Puts the regions on their tracks, in one step of undo. The imports come before: each is a step of its own, in which nothing
-- happens that can be seen, and Ardour 7 aborts commands that are within one another.
local function place(plan, tracks, stale, silent, report)
	local wholes, todo = {}, {}
	for _, track in ipairs(plan.tracks) do
		local mark = tracks[track.key]
		if mark.digest ~= clips_digest(track) or mark.undone or #regions_of(mark.route) ~= #track.clips then
			local placed = {}
			for index, clip in ipairs(track.clips) do
				if clip.play_rate ~= 1 then problem("Ardour has no play rate for clips") end
				wholes[clip.file] = wholes[clip.file] or import_file(clip.file)
				placed[index] = { make_region(clip, wholes[clip.file]), position_samples(clip.position, plan) }
			end
			todo[#todo + 1] = { track = track, mark = mark, placed = placed }
		end
	end
	Session:begin_reversible_command("Separate to stems")
	for _, mark in ipairs(stale) do
		if mark.role == "track" then set_regions(mark.route, {}) end
	end
	for _, item in ipairs(todo) do set_regions(item.mark.route, item.placed) end
	set_muted(silent, true)
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
		for _, region in ipairs(regions_of(tracks[track.key].route)) do
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
function M.render(plan)
	local report = {}
	settle(plan)
	local strips = our_strips(plan.identity)
	if is_done(plan, strips) then
		for _, list in ipairs({ { "track", plan.tracks }, { "bus", plan.buses } }) do
			for _, strip in ipairs(list[2]) do
				local mark = find_strip(strips, list[1], strip.key)
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
		strips, tracks, buses, new = strips_for(plan, report)
		join_group(plan, tracks, buses, new)
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
			mark.digest, mark.undone = clips_digest(track), false
			mark.source, mark.muted = source and id_of(source) or "-", what or "-"
			write_mark(mark.route, mark)
		end
		for _, mark in pairs(buses) do
			mark.undone = false
			write_mark(mark.route, mark)
		end
		for _, mark in ipairs(stale) do
			put_away(mark)
			report[#report + 1] = { role = mark.role, key = mark.key, name = mark.route:name(), outcome = "removed" }
		end
		remove_idle_vcas(stale)
	end)
	ARDOUR.LuaAPI.usleep(100000) -- the thread that connects looks at the setting when it gets to a new strip
	config:set_output_auto_connect(connect)
	if not ok then error(why, 0) end
	Session:save_state("", false, false, false, false, false)
	return report
end

-- Undo and redo. When Undo has taken the clips of a set away, its strips are put away and the source is heard again; Redo
-- brings all of it back.

local function watch_undo()
	local sets = {}
	for _, mark in ipairs(our_strips()) do
		local set = sets[mark.identity] or { regions = 0, tracks = 0, undone = 0, strips = {}, vcas = {} }
		sets[mark.identity] = set
		set.strips[#set.strips + 1] = mark
		if mark.vca ~= "-" then
			set.vcas[mark.vca] = set.vcas[mark.vca] or {}
			table.insert(set.vcas[mark.vca], mark)
		end
		if mark.role == "track" then
			local count = #regions_of(mark.route)
			set.regions, set.tracks = set.regions + count, set.tracks + 1
			if mark.undone then set.undone = set.undone + 1 end
			if mark.undone and count > 0 then set.back = true end
			if mark.muted == "track" then set.source = mark.source end
		end
	end
	local silent, changed, away = {}, {}, {} -- by the source's id: whether stems are heard instead, and whether that is new
	for _, set in pairs(sets) do
		local gone = set.tracks > 0 and set.regions == 0 and set.undone < set.tracks
		if set.source and set.regions > 0 then silent[set.source] = true end
		if gone or set.back then
			for _, mark in ipairs(set.strips) do
				if gone or (mark.role == "track" and #regions_of(mark.route) == 0) then
					away[#away + 1] = mark
					if not mark.undone then put_away(mark) end
				elseif mark.undone then
					mark.undone = false
					write_mark(mark.route, mark)
					set_shown(mark.route, true)
				end
			end
			for name, marks in pairs(gone and {} or set.vcas) do join_vca(name, marks) end
			if set.source then changed[set.source] = true end
		end
	end
	remove_idle_vcas(away)
	for id in pairs(changed) do
		local source = route_by_id(id)
		if source then source:mute_control():set_value(silent[id] and 1 or 0, NO_GROUP) end
	end
end

-- Takes the stems away that are selected, or whose source is: as Undo would, and as one step that Undo takes back.
function M.remove()
	local selected, chosen, sets, count = {}, {}, {}, 0
	for route in Editor:get_selection().tracks:routelist():iter() do selected[id_of(route)] = true end
	for _, mark in ipairs(our_strips()) do
		if not mark.undone and not sets[mark.identity] then sets[mark.identity], count = true, count + 1 end
		if selected[id_of(mark.route)] or selected[mark.source] then chosen[mark.identity] = true end
	end
	if count == 1 then chosen = sets end
	if not next(chosen) then
		problem("No stems are selected.", "Select one of their tracks or buses, or the track that they were made from.")
	end
	Session:begin_reversible_command("Remove stems")
	for _, mark in ipairs(our_strips()) do
		local source = chosen[mark.identity] and mark.muted == "regions" and route_by_id(mark.source)
		if source then
			local places, heard = separated_places(mark.source), {}
			for _, region in ipairs(regions_of(source)) do
				if region:muted() and places[place_of(region)] then heard[#heard + 1] = region end
			end
			set_muted(heard, false)
		end
	end
	for _, mark in ipairs(our_strips()) do
		if chosen[mark.identity] and mark.role == "track" then set_regions(mark.route, {}) end
	end
	if not Session:abort_empty_reversible_command() then Session:commit_reversible_command(nil) end
	watch_undo()
	Session:save_state("", false, false, false, false, false)
end

-- What is to be separated.

local function source_channels(region)
	local channels = common.array()
	local audio = region:to_audioregion()
	for index = 0, audio:n_channels() - 1 do
		local file = region:source(index):to_filesource()
		if file:isnil() then return nil end
		channels[index + 1] = { path = file:path(), channel = file:channel() }
	end
	return channels
end

local function item_of(region)
	local channels = not region:to_audioregion():isnil() and source_channels(region)
	if not channels then return nil end
	return {
		channels = channels, start_frame = region:start():samples(), frames = region:length():samples(),
		position = { value = region:position():samples(), unit = "frames" }, play_rate = 1.0, preserve_pitch = false,
		gain_db = 20 * math.log(math.max(region:to_audioregion():scale_amplitude(), 1e-6), 10),
		item = id_of(region), name = region:name(),
	}
end

-- Track → its items that are wanted: the selected regions and those that have stems already, which would be replaced
-- otherwise; or else all of the selected tracks.
local function selected_items()
	local selection = Editor:get_selection()
	local wanted = {}
	for region in selection.regions:regionlist():iter() do wanted[id_of(region)] = true end
	local tracks = {}
	if next(wanted) then
		for route in Session:get_tracks():iter() do tracks[#tracks + 1] = route end
	else
		for route in selection.tracks:routelist():iter() do
			if not route:to_track():isnil() then tracks[#tracks + 1] = route end
		end
	end
	local found = {}
	for _, route in ipairs(tracks) do
		local items = common.array()
		local chosen = false
		if not read_mark(route) then
			local places = separated_places(id_of(route))
			for _, region in ipairs(regions_of(route)) do
				local mine = wanted[id_of(region)] or not next(wanted) and not region:muted()
				local item = (mine or places[place_of(region)]) and item_of(region)
				chosen = chosen or (item and mine)
				if item then items[#items + 1] = item end
			end
		end
		if chosen then found[#found + 1] = { route = route, items = items } end
	end
	return found
end

-- Requests that are under way are kept in a file, since actions and the hook have Lua states of their own.

local function read_pending() return common.read_json(current_box().path("pending")) or { requests = common.array() } end

local function write_pending(pending) common.write_json(current_box().path("pending"), pending) end

-- Tells the daemon that there is something; false where none seems to run.
local function ring()
	local connection = common.connection(settings)
	local port = connection and common.get(connection, "osc_udp_port")
	if port then
		ARDOUR.LuaOSC.Address(("osc.udp://127.0.0.1:%d"):format(port)):send("/revithion/v1/daw/ring", "ss",
			connection.osc_token, current_box().name)
	end
	return connection ~= nil
end

local function start_daemon()
	local windows = common.get(settings, "windows")
	local words = {}
	for index, word in ipairs(settings.start) do words[index] = common.quote(word, windows) end
	local command = table.concat(words, " ")
	if windows then
		os.execute('start "" /b ' .. command)
	else -- Ardour's own libraries are not meant for other programs
		os.execute("env -u LD_LIBRARY_PATH -u LD_PRELOAD " .. command .. " </dev/null >/dev/null 2>&1 &")
	end
end

function M.separate(options)
	local this = current_box()
	local found = selected_items()
	if #found == 0 then
		problem("Nothing is selected that could be separated.", "Select an audio track, or regions of it.")
	end
	local pending = read_pending()
	for _, track in ipairs(found) do
		local id, why = common.request(this, {
			preset = options.preset or "", model = options.model or "", align_to = options.align_to or "item",
			project_rate = math.floor(Session:nominal_sample_rate()), folder = Session:path() .. "/stems",
			track = { id = id_of(track.route), name = track.route:name() }, items = track.items,
		})
		if not id then problem("The mailbox can't be written: " .. tostring(why), "Is the disk full?") end
		pending.requests[#pending.requests + 1] = { id = id, name = track.route:name(), asked_at = now_s() }
	end
	write_pending(pending)
	if not ring() then start_daemon() end
end

-- Asks how; then the same.
function M.ask()
	local presets, choices = {}, common.read_json(settings.mailboxes .. "/choices.json") or {}
	for _, preset in ipairs(choices.presets or {}) do presets[preset.label] = preset.name end
	if not next(presets) then presets["4 stems to buses"] = "" end
	local models = { ["the best there is"] = "" }
	for _, model in ipairs(choices.models or {}) do models[model] = model end
	local answer = LuaDialog.Dialog("Separate to stems", {
		{ type = "dropdown", key = "preset", title = "Preset", values = presets },
		{ type = "dropdown", key = "model", title = "Model", values = models, default = "the best there is" },
		{ type = "dropdown", key = "align_to", title = "Position",
			values = { ["where the regions are"] = "item", ["session start"] = "project_start" },
			default = "where the regions are" },
	}):run()
	if answer then M.separate(answer) end
end

-- The hook.

local progress = nil -- the window; nil where nothing is shown
local asked_for_daemon = nil

local function close_progress()
	if progress then progress:done() end
	progress = nil
end

local function finish(request)
	local this = current_box()
	local status = common.status(this, request.id)
	if status.state == "done" then
		local ok, why = pcall(M.render, status.plan)
		common.forget(this, request.id)
		if not ok then return as_problem(why) end
	else
		common.forget(this, request.id)
		if status.state == "failed" then return common.get(status, "error") or { message = "It failed.", hint = "" } end
	end
	return nil
end

local FINAL = { done = true, failed = true, cancelled = true }

-- One step of the requests that are under way.
local function follow()
	local this = current_box()
	local pending = read_pending()
	local requests = pending.requests
	if #requests == 0 then return close_progress() end
	local fraction, text, ended, unanswered = 0, "", nil, 0
	for index, request in ipairs(requests) do
		local status = common.status(this, request.id)
		if status then
			fraction = fraction + (common.get(status, "fraction") or 0) / #requests
			if text == "" then text = common.get(status, "text") or status.state end
			if FINAL[status.state] and not ended then ended = index end
		else
			unanswered = math.max(unanswered, now_s() - request.asked_at)
		end
	end
	if not progress then
		progress = LuaDialog.ProgressWindow(TITLE .. ": " .. requests[1].name:sub(1, 60), true)
	end
	if progress:progress(math.min(fraction, 1), text ~= "" and text or "waiting for the daemon") then
		for _, request in ipairs(requests) do common.cancel(this, request.id) end
		ring()
		if unanswered > UNANSWERED_S then ended = ended or 1 end
		close_progress()
	end
	local failure
	if ended then
		local request = table.remove(requests, ended)
		write_pending({ requests = common.array(requests) })
		close_progress()
		if common.status(this, request.id) then failure = finish(request) else common.forget(this, request.id) end
	elseif unanswered > GIVE_UP_S then
		for _, request in ipairs(requests) do common.forget(this, request.id) end
		write_pending({ requests = common.array() })
		close_progress()
		failure = { message = "The daemon does not answer.", hint = "`revithion-stems daw test ardour` looks for the cause." }
	elseif unanswered > UNANSWERED_S and (not asked_for_daemon or now_s() - asked_for_daemon > GIVE_UP_S) then
		asked_for_daemon = now_s()
		start_daemon()
	end
	if failure then show_error(failure.message, failure.hint) end
end

local function set_fader(command)
	local wanted = {}
	for _, mark in ipairs(our_strips(command.identity ~= "" and command.identity or nil)) do
		if mark.role == command.role and (mark.key == command.key or mark.route:name() == command.key) then
			local gain, muted = common.get(command, "gain_db"), command.muted
			if gain then mark.route:gain_control():set_value(common.gain(gain), NO_GROUP) end
			if type(muted) == "boolean" then mark.route:mute_control():set_value(muted and 1 or 0, NO_GROUP) end
			wanted[#wanted + 1] = { role = mark.role, key = mark.key, name = mark.route:name() }
		end
	end
	return wanted
end

local COMMANDS = {
	import = function(command) return M.render(command.plan) end,
	fader = set_fader,
}

local function obey()
	local this = current_box()
	local command = common.receive(this)
	if not command then return end
	local act = COMMANDS[command.type]
	local ok, result = pcall(function()
		if not act then problem(("%s is not known to this script"):format(tostring(command.type)), "Install the scripts again.") end
		return act(command)
	end)
	if ok then
		common.answer(this, command, { ok = true, strips = common.array(result) })
	else
		common.answer(this, command, { ok = false, error = as_problem(result) })
	end
end

local function announce()
	local strips = common.array()
	for _, mark in ipairs(our_strips()) do
		local gain = mark.route:gain_control():get_value()
		strips[#strips + 1] = { identity = mark.identity, role = mark.role, key = mark.key, name = mark.route:name(),
			gain_db = gain > 1e-6 and 20 * math.log(gain, 10) or -120.0, muted = mark.route:mute_control():muted() }
	end
	common.announce(current_box(), { daw = "ardour", program = FOLDER:lower():match("ardour(%d+)") or "", name = Session:name(),
		path = Session:path(), sample_rate = math.floor(Session:nominal_sample_rate()), strips = strips })
end

local DUE = { { every_s = 0.1, act = obey }, { every_s = 0.2, act = follow }, { every_s = 0.5, act = watch_undo },
	{ every_s = 1.0, act = announce } }
local running, complained = false, nil

-- Called ten times a second. Dialogs and imports let the program go on, so that it may be called while it runs.
function M.poll()
	if running or not settings then return end
	running = true
	local now = now_s()
	for _, task in ipairs(DUE) do
		if not task.next or now >= task.next then
			task.next = now + task.every_s
			local ok, why = pcall(task.act)
			local what = not ok and as_problem(why)
			if what and complained ~= what.message then -- once: it may come again ten times a second
				complained = what.message
				close_progress()
				show_error(what.message, what.hint)
			end
		end
	end
	running = false
end

-- Runs one of the functions above for an action: what goes wrong is shown.
function M.run(name, options)
	local ok, why = pcall(M[name], options or {})
	if not ok then
		local what = as_problem(why)
		show_error(what.message, what.hint)
	end
end

return M
