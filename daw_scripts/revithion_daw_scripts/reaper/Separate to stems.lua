-- @name Separate to stems
-- @menu track item
-- Selected items, or all audio of the selected tracks: stems on tracks and buses of their own.

local folder = debug.getinfo(1, "S").source:match("^@(.*)[/\\]")
dofile(folder .. "/stems.lua").separation.run({})
