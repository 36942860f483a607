-- What follows when Undo or Redo take the clips of stems away or bring them back; and taking them away on purpose.

local M = ...
local problem, ours = M.problem, M.ours
local U = {}

local NO_GROUP = PBD.GroupControlDisposition.NoGroup

-- Undo and redo. When Undo has taken the clips of a set away, its strips are put away and the source is heard again; Redo
-- brings all of it back.

function U.watch()
	local sets = {}
	for _, mark in ipairs(ours.all()) do
		local set = sets[mark.identity] or { regions = 0, tracks = 0, undone = 0, strips = {}, vcas = {} }
		sets[mark.identity] = set
		set.strips[#set.strips + 1] = mark
		if mark.vca ~= "-" then
			set.vcas[mark.vca] = set.vcas[mark.vca] or {}
			table.insert(set.vcas[mark.vca], mark)
		end
		if mark.role == "track" then
			local count = #ours.regions_of(mark.route)
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
				if gone or (mark.role == "track" and #ours.regions_of(mark.route) == 0) then
					away[#away + 1] = mark
					if not mark.undone then ours.put_away(mark) end
				elseif mark.undone then
					mark.undone = false
					ours.write(mark.route, mark)
					ours.set_shown(mark.route, true)
				end
			end
			for name, marks in pairs(gone and {} or set.vcas) do ours.join_vca(name, marks) end
			if set.source then changed[set.source] = true end
		end
	end
	ours.remove_idle_vcas(away)
	for id in pairs(changed) do
		local source = ours.route_by_id(id)
		if source then source:mute_control():set_value(silent[id] and 1 or 0, NO_GROUP) end
	end
end

-- Takes the stems away that are selected, or whose source is: as Undo would, and as one step that Undo takes back.
function U.remove()
	local selected, chosen, sets, count = {}, {}, {}, 0
	for route in Editor:get_selection().tracks:routelist():iter() do selected[ours.id_of(route)] = true end
	for _, mark in ipairs(ours.all()) do
		if not mark.undone and not sets[mark.identity] then sets[mark.identity], count = true, count + 1 end
		if selected[ours.id_of(mark.route)] or selected[mark.source] then chosen[mark.identity] = true end
	end
	if count == 1 then chosen = sets end
	if not next(chosen) then
		problem("No stems are selected.", "Select one of their tracks or buses, or the track that they were made from.")
	end
	Session:begin_reversible_command("Remove stems")
	for _, mark in ipairs(ours.all()) do
		local source = chosen[mark.identity] and mark.muted == "regions" and ours.route_by_id(mark.source)
		if source then
			local places, heard = ours.separated_places(mark.source), {}
			for _, region in ipairs(ours.regions_of(source)) do
				if region:muted() and places[ours.place_of(region)] then heard[#heard + 1] = region end
			end
			ours.set_muted(heard, false)
		end
	end
	for _, mark in ipairs(ours.all()) do
		if chosen[mark.identity] and mark.role == "track" then ours.set_regions(mark.route, {}) end
	end
	if not Session:abort_empty_reversible_command() then Session:commit_reversible_command(nil) end
	U.watch()
	Session:save_state("", false, false, false, false, false)
end

return U
