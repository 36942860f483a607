-- Tracks and buses that a plan asks for: made, wired, grouped.

local M = ...
local common, problem, ours = M.common, M.problem, M.ours
local L = {}

local NO_GROUP = PBD.GroupControlDisposition.NoGroup

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

function L.strips(plan, report)
	local strips = ours.all(plan.identity)
	local source = common.get(plan, "source")
	local source_route = source and ours.route_by_id(source.track_id)
	local order = ARDOUR.PresentationInfo.max_order
	if source_route then order = source_route:presentation_info_ptr():order() + 1 end
	local master = Session:master_out()
	local buses, tracks = {}, {}
	local function ensure(strip, role, output_channels)
		local mark = ours.find(strips, role, strip.key)
		local made = not mark
		if made then
			local route = new_strip(strip, role, order, output_channels)
			if order ~= ARDOUR.PresentationInfo.max_order then order = order + 1 end
			mark = { route = route, identity = plan.identity, role = role, key = strip.key, digest = "", source = "-",
				muted = "-", vca = "-", about = ("%s of %s"):format(strip.key, plan.title):gsub("%c", " ") }
			ours.write(route, mark)
		elseif mark.undone then
			ours.set_shown(mark.route, true)
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

function L.join_group(plan, tracks, buses, new)
	local planned_group = common.get(plan, "group")
	if planned_group then
		local group = ours.find_group(planned_group.name)
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
		if #joining > 0 then ours.join_vca(plan.vca, joining) end
	end
end

return L
