ardour {
	["type"] = "EditorAction",
	name = "Separate to stems...",
	license = "MIT",
	author = "revithion-stems",
	description = [[As Separate to stems, but asks for the preset, the model and the position.]]
}

function factory () return function ()
	local folder = ARDOUR.user_config_directory (-1) .. "/revithion_stems"
	local act = loadfile (folder .. "/action.lua")
	if act then act (folder, "ask") end
end end

function icon ()
	local draw = loadfile (ARDOUR.user_config_directory (-1) .. "/revithion_stems/icon.lua")
	return draw and draw ("ask")
end
