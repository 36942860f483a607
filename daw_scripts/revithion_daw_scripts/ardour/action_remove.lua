ardour {
	["type"] = "EditorAction",
	name = "Remove stems",
	license = "MIT",
	author = "revithion-stems",
	description = [[Takes away the stems that are selected, or that were made from the selected track; the source is heard again. Undo brings them back.]]
}

function factory () return function ()
	local folder = ARDOUR.user_config_directory (-1) .. "/revithion_stems"
	local act = loadfile (folder .. "/action.lua")
	if act then act (folder, "remove") end
end end

function icon ()
	local draw = loadfile (ARDOUR.user_config_directory (-1) .. "/revithion_stems/icon.lua")
	return draw and draw ("remove")
end
