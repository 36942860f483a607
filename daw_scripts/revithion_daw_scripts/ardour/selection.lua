-- What the user has selected, as items that can be separated.

local M = ...
local common, ours = M.common, M.ours
local P = {}

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
		item = ours.id_of(region), name = region:name(),
	}
end

-- Track → its items that are wanted: the selected regions and those that have stems already, which would be replaced
-- otherwise; or else all of the selected tracks.
function P.items()
	local selection = Editor:get_selection()
	local wanted = {}
	for region in selection.regions:regionlist():iter() do wanted[ours.id_of(region)] = true end
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
		if not ours.read(route) then
			local places = ours.separated_places(ours.id_of(route))
			for _, region in ipairs(ours.regions_of(route)) do
				local mine = wanted[ours.id_of(region)] or not next(wanted) and not region:muted()
				local item = (mine or places[ours.place_of(region)]) and item_of(region)
				chosen = chosen or (item and mine)
				if item then items[#items + 1] = item end
			end
		end
		if chosen then found[#found + 1] = { route = route, items = items } end
	end
	return found
end

return P
