-- @name Separate to stems (options)
-- @menu track item
-- As "Separate to stems", after a question for preset, model and place.

local folder = debug.getinfo(1, "S").source:match("^@(.*)[/\\]")
local stems = dofile(folder .. "/stems.lua")

local SECTION = "revithion_stems"
local FIELDS = { "preset", "model", "align_to" }
local SEPARATOR = "|" -- of answers: a path may have commas
local CAPTIONS = "Preset (empty: 4 stems to buses),Model (empty: the usual),Place (item, project_start, bar 9),"
	.. "extrawidth=160,separator=" .. SEPARATOR

local last = {}
for index, field in ipairs(FIELDS) do last[index] = reaper.GetExtState(SECTION, field) end
local pressed_ok, answers = reaper.GetUserInputs("Separate to stems", #FIELDS, CAPTIONS, table.concat(last, SEPARATOR))
if not pressed_ok then return end

local options = {}
local at = 1
for answer in (answers .. SEPARATOR):gmatch("([^|]*)|") do
	local field = FIELDS[at]
	if field then
		options[field] = answer:match("^%s*(.-)%s*$")
		reaper.SetExtState(SECTION, field, options[field], true)
	end
	at = at + 1
end
stems.separation.run(options)
