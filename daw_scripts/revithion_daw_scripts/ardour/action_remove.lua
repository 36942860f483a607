ardour {
	["type"] = "EditorAction",
	name = "Remove stems",
	license = "MIT",
	author = "revithion-stems",
	description = [[Takes away the stems that are selected, or that were made from the selected track; the source is heard again. Undo brings them back.]]
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
	if ok then stems.run ("remove") else LuaDialog.Message ("Stems", tostring (stems), LuaDialog.MessageType.Error, LuaDialog.ButtonType.Close):run () end
end end

function icon (params) return function (ctx, width, height, fg)
	local colours = { { 0, .62, .45 }, { .84, .37, 0 }, { .8, .47, .65 }, { .34, .71, .91 } } -- drums, bass, other, vocals
	local step = height / 5
	for index, colour in ipairs (colours) do
		ctx:set_source_rgba (colour[1], colour[2], colour[3], 1)
		ctx:rectangle (width * .2, step * (index - .15), width * .6, step * .55)
		ctx:fill ()
	end
	ctx:set_source_rgba (ARDOUR.LuaAPI.color_to_rgba (fg))
	ctx:set_line_width (1.5)
	ctx:move_to (width * .15, height * .85)
	ctx:line_to (width * .85, height * .15)
	ctx:stroke ()
end end
