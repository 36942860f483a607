-- The window that shows how far the work is. Closing it hides it, and the work goes on; Esc or the button cancels.

local M = ...
local P = {}

local WIDTH, ROW, MARGIN, BUTTON = 480, 52, 14, 28
local ESCAPE, CLOSED = 27, -1

local function colour(red, green, blue) gfx.set(red, green, blue, 1) end

local function shortened(text, width)
	if gfx.measurestr(text) <= width then return text end
	local last = utf8.len(text) and utf8.offset(text, -1) or #text
	while last > 1 and gfx.measurestr(text:sub(1, last - 1) .. "…") > width do
		last = utf8.len(text) and utf8.offset(text, -1, last) or last - 1
	end
	return text:sub(1, last - 1) .. "…"
end

-- A window for so many rows.
function P.open(title, rows)
	local window = { is_open = true, height = rows * ROW + BUTTON + 3 * MARGIN }
	gfx.init(title, WIDTH, window.height, 0)
	gfx.setfont(1, "Arial", 15)
	return window
end

local function text_at(x, y, text)
	gfx.x, gfx.y = x, y
	gfx.drawstr(text)
end

local function draw_row(row, y)
	local inner = WIDTH - 2 * MARGIN
	colour(0.92, 0.92, 0.92)
	text_at(MARGIN, y, shortened(row.title, inner))
	colour(0.25, 0.25, 0.27)
	gfx.rect(MARGIN, y + 20, inner, 8, 1)
	colour(0.34, 0.71, 0.91)
	gfx.rect(MARGIN, y + 20, math.floor(inner * math.min(1, math.max(0, row.fraction))), 8, 1)
	colour(0.65, 0.65, 0.67)
	text_at(MARGIN, y + 31, shortened(row.text, inner))
end

-- Draws rows of { title, text, fraction }; true if the user wants to cancel.
function P.update(window, rows)
	if not window.is_open then return false end
	local key = gfx.getchar()
	if key == CLOSED then
		window.is_open = false
		return false
	end
	colour(0.15, 0.15, 0.16)
	gfx.rect(0, 0, WIDTH, window.height, 1)
	for index, row in ipairs(rows) do draw_row(row, MARGIN + (index - 1) * ROW) end
	local x, y, width = WIDTH - MARGIN - 90, window.height - MARGIN - BUTTON, 90
	colour(0.3, 0.3, 0.32)
	gfx.rect(x, y, width, BUTTON, 1)
	colour(0.92, 0.92, 0.92)
	text_at(x + 22, y + 6, "Cancel")
	gfx.update()
	local is_down = gfx.mouse_cap & 1 == 1
	local is_inside = gfx.mouse_x >= x and gfx.mouse_x < x + width and gfx.mouse_y >= y and gfx.mouse_y < y + BUTTON
	return (is_down and is_inside) or key == ESCAPE
end

function P.close(window)
	if window.is_open then gfx.quit() end
	window.is_open = false
end

return P
