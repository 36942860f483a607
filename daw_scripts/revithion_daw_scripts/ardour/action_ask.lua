ardour {
	["type"] = "EditorAction",
	name = "Separate to stems...",
	license = "MIT",
	author = "revithion-stems",
	description = [[As Separate to stems, but asks for the preset, the model and the position.]]
}

function factory () return function ()
	local folder = ARDOUR.user_config_directory (-1) .. "/revithion_stems"
	local chunk, why = loadfile (folder .. "/stems.lua")
	if not chunk then
		local text = tostring (why) .. "\n\nRun `revithion-stems daw install ardour` again."
		LuaDialog.Message ("Stems", text, LuaDialog.MessageType.Error, LuaDialog.ButtonType.Close):run ()
		return
	end
	local ok, stems = pcall (chunk, folder) -- an action that errors is removed by Ardour
	if ok then stems.run ("ask") else LuaDialog.Message ("Stems", tostring (stems), LuaDialog.MessageType.Error, LuaDialog.ButtonType.Close):run () end
end end
