-- The picture of an action's button: four stems, and a sign for what is done with them. Called with the action's name.

local name = ...

local SIGNS = {
	ask = function (ctx, width, height)
		for index = 1, 3 do
			ctx:rectangle (width * .68, height / 5 * (index + .4), width * .12, height / 10)
			ctx:fill ()
		end
	end,
	remove = function (ctx, width, height)
		ctx:set_line_width (1.5)
		ctx:move_to (width * .15, height * .85)
		ctx:line_to (width * .85, height * .15)
		ctx:stroke ()
	end,
}

return function (ctx, width, height, foreground)
	local colours = { { 0, .62, .45 }, { .84, .37, 0 }, { .8, .47, .65 }, { .34, .71, .91 } } -- drums, bass, other, vocals
	for index, colour in ipairs (colours) do
		ctx:set_source_rgba (colour[1], colour[2], colour[3], 1)
		ctx:rectangle (width * .2, height / 5 * (index - .15), width * (name == "ask" and .35 or .6), height * .11)
		ctx:fill ()
	end
	if SIGNS[name] then
		ctx:set_source_rgba (ARDOUR.LuaAPI.color_to_rgba (foreground))
		SIGNS[name] (ctx, width, height)
	end
end
