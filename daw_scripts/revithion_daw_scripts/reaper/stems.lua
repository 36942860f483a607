-- Our library for REAPER's Lua, from the folder that this file is in. The scripts begin with it; nothing is global.

local folder = debug.getinfo(1, "S").source:match("^@(.*)[/\\]") or "."
local M = { folder = folder, common = dofile(folder .. "/common.lua") }
for _, name in ipairs({ "tracks", "items", "render", "selection", "progress", "separation" }) do
	M[name] = assert(loadfile(folder .. "/" .. name .. ".lua"))(M)
end
return M
