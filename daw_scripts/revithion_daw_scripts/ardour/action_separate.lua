ardour {
	["type"] = "EditorAction",
	name = "Separate to stems",
	license = "MIT",
	author = "revithion-stems",
	description = [[Separates the selected regions, or the selected tracks, into stems on tracks and buses of their own.]]
}

function factory () return function ()
	local folder = ARDOUR.user_config_directory (-1) .. "/revithion_stems"
	local act = loadfile (folder .. "/action.lua")
	if act then act (folder, "separate") end
end end

function icon ()
	local draw = loadfile (ARDOUR.user_config_directory (-1) .. "/revithion_stems/icon.lua")
	return draw and draw ("separate")
end
