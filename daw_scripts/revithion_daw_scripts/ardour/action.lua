-- What our actions do when they are called with the folder that this file is in and the name of a function of stems.lua.

local folder, name = ...

-- Ardour removes an action that ends with an error: nothing gets out of here.
local chunk, why = loadfile (folder .. "/stems.lua")
local ok, stems = false, why
if chunk then ok, stems = pcall (chunk, folder) end
if ok then
	stems.run (name)
else
	local text = tostring (stems) .. "\n\nRun `revithion-stems daw install ardour` again."
	LuaDialog.Message ("Stems", text, LuaDialog.MessageType.Error, LuaDialog.ButtonType.Close):run ()
end
