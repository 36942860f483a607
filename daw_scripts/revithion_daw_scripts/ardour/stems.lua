-- Stems in Ardour 7 and 8: what the actions and the hook do. Lua 5.3, Ardour's library, and the files beside this one.
-- Called with the folder that it is in; returns a table. All of it runs on the GUI's thread.

local M = { folder = ..., TITLE = "Stems" }

local function part(name) return assert(loadfile(M.folder .. "/" .. name .. ".lua"))(M) end

M.common = part("common")
M.settings, M.incomplete = M.common.settings(M.folder)

function M.now_s() return ARDOUR.LuaAPI.monotonic_time() / 1e6 end

function M.show_error(message, hint)
	local text = message .. (hint and hint ~= "" and "\n\n" .. hint or "")
	LuaDialog.Message(M.TITLE, text, LuaDialog.MessageType.Error, LuaDialog.ButtonType.Close):run()
end

-- Ends what is being done, with something that the user is told.
function M.problem(message, hint) error({ code = "daw.refused", message = message, hint = hint or "" }, 0) end

function M.as_problem(why)
	if type(why) == "table" then return why end
	return { code = "daw.refused", message = tostring(why), hint = "See docs/daw/ardour.md, Troubleshooting." }
end

-- The session's box; another session is another box.
local box
function M.current_box()
	if not M.settings then M.problem(M.incomplete) end
	local path = Session:path()
	if not box or box.session_path ~= path then
		box = M.common.open(M.settings, "ardour", path)
		box.session_path = path
	end
	return box
end

for _, name in ipairs({ "ours", "clips", "layout", "render", "undo", "selection", "requests", "link" }) do
	M[name] = part(name)
end

M.poll = M.link.poll

local ACTIONS = { separate = M.requests.separate, ask = M.requests.ask, remove = M.undo.remove }

-- Runs an action: what goes wrong is shown.
function M.run(name)
	local ok, why = pcall(ACTIONS[name], {})
	if not ok then
		local what = M.as_problem(why)
		M.show_error(what.message, what.hint)
	end
end

return M
