-- Tracks and buses in Ardour's session that are ours: how they are known, found, shown and put away.

local M = ...
local S = {}

local PREFIX = "revithion-stems:"
local LINE = "\n" .. PREFIX:gsub("%-", "%%-")
local UNDONE = "(undone)"

-- What is ours is marked in the comment of its track or bus, below a line for people:
--   revithion-stems:IDENTITY:ROLE:KEY, with %XX for the bytes of its key that are no letters or digits
--   DIGEST of the clips that it should have; "(undone)" behind it while Undo has taken them away
--   SOURCE, the id of the track that it was made from, and "track" or "regions": what of it was muted; or "-"
--   VCA, the name of the one that governs it, or "-"

function S.id_of(object) return object:to_stateful():id():to_s() end

function S.read(route)
	local identity, role, key, rest = ("\n" .. route:comment()):match(LINE .. "(%x+):(%a+):([^\n]*)\n?(.*)")
	if not identity then return nil end
	local digest, undone, source, vca = rest:match("^(%x*)([^\n]*)\n?([^\n]*)\n?([^\n]*)")
	return {
		route = route, identity = identity, role = role, digest = digest, undone = undone == " " .. UNDONE,
		key = key:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end),
		source = source:match("^%d+") or "-", muted = source:match("%a+$") or "-", vca = vca ~= "" and vca or "-",
	}
end

function S.write(route, mark)
	local above = ("\n" .. route:comment()):match("^(.-)" .. LINE)
	local about = above and above:sub(2) or route:comment()
	if about == "" then about = mark.about or "" end
	local word = mark.key:gsub("[^%w._-]", function(byte) return ("%%%02X"):format(byte:byte()) end)
	local lines = { about, PREFIX .. mark.identity .. ":" .. mark.role .. ":" .. word,
		mark.digest .. (mark.undone and " " .. UNDONE or ""), mark.source == "-" and "-" or mark.source .. " " .. mark.muted, mark.vca }
	route:set_comment(table.concat(lines, "\n"), nil)
end

-- All strips of ours; those of one plan, if its identity is given.
function S.all(identity)
	local strips = {}
	for route in Session:get_routes():iter() do
		local mark = S.read(route)
		if mark and (not identity or mark.identity == identity) then strips[#strips + 1] = mark end
	end
	return strips
end

function S.find(strips, role, key)
	for _, mark in ipairs(strips) do
		if mark.role == role and mark.key == key then return mark end
	end
end

function S.route_by_id(id)
	for route in Session:get_routes():iter() do
		if S.id_of(route) == id then return route end
	end
end

function S.regions_of(route)
	local regions = {}
	for region in route:to_track():playlist():region_list():iter() do regions[#regions + 1] = region end
	return regions
end

-- Where a region is and what it shows, as text: a source's region and those of its stems have the same.
function S.place_of(region)
	return ("%d %d %d"):format(region:position():samples(), region:start():samples(), region:length():samples())
end

-- The places of the regions that have stems, of a track.
function S.separated_places(source_id)
	local places = {}
	for _, mark in ipairs(S.all()) do
		if mark.source == source_id and mark.role == "track" and not mark.undone then
			for _, region in ipairs(S.regions_of(mark.route)) do places[S.place_of(region)] = true end
		end
	end
	return places
end

function S.find_group(name)
	for group in Session:route_groups():iter() do
		if group:name() == name then return group end
	end
end

local function find_vca(name)
	for vca in Session:vca_manager():vcas():iter() do
		if vca:name() == name then return vca end
	end
end

function S.set_shown(route, shown)
	route:set_active(shown, nil)
	local view = Editor:rtav_from_route(route):to_timeaxisview()
	if shown then Editor:show_track_in_display(view, false) else Editor:hide_track_in_display(view, false) end
end

-- Ardour can't undo that a track was made: one that is not wanted any more is hidden and inactive until it is again.
function S.put_away(mark)
	mark.undone = true
	S.write(mark.route, mark)
	S.set_shown(mark.route, false)
end

-- Removes those VCAs of the strips that govern nothing any more.
function S.remove_idle_vcas(marks)
	local used = { ["-"] = true }
	for _, mark in ipairs(S.all()) do used[mark.vca] = used[mark.vca] or not mark.undone end
	for _, mark in ipairs(marks) do
		local vca = not used[mark.vca] and find_vca(mark.vca)
		if vca then Session:vca_manager():remove_vca(vca) end
	end
end

function S.join_vca(name, marks)
	local vca = find_vca(name) or Session:vca_manager():create_vca(1, name):front()
	for _, mark in ipairs(marks) do
		mark.vca = name
		S.write(mark.route, mark)
		mark.route:to_slavable():assign(vca)
	end
end

-- Has a track hold these regions, each with its position, and no others; within a command that can be undone.
function S.set_regions(route, placed)
	local playlist = route:to_track():playlist()
	playlist:to_stateful():clear_changes()
	for _, region in ipairs(S.regions_of(route)) do playlist:remove_region(region) end
	for _, pair in ipairs(placed) do playlist:add_region(pair[1], Temporal.timepos_t(pair[2]), 1, false) end
	Session:add_stateful_diff_command(playlist:to_statefuldestructible())
end

-- Mutes regions, or lets them be heard; within a command that can be undone.
function S.set_muted(regions, muted)
	for _, region in ipairs(regions) do
		region:to_stateful():clear_changes()
		region:set_muted(muted)
		Session:add_stateful_diff_command(region:to_statefuldestructible())
	end
end

return S
