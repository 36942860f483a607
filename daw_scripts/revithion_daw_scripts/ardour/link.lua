-- The hook: looks for what other programs want, and follows what is under way.

local M = ...
local common, ours, render, requests = M.common, M.ours, M.render, M.requests
local problem, as_problem, current_box = M.problem, M.as_problem, M.current_box
local H = {}

local NO_GROUP = PBD.GroupControlDisposition.NoGroup

local function set_fader(command)
	local wanted = {}
	for _, mark in ipairs(ours.all(command.identity ~= "" and command.identity or nil)) do
		if mark.role == command.role and (mark.key == command.key or mark.route:name() == command.key) then
			local gain, muted = common.get(command, "gain_db"), command.muted
			if gain then mark.route:gain_control():set_value(common.gain(gain), NO_GROUP) end
			if type(muted) == "boolean" then mark.route:mute_control():set_value(muted and 1 or 0, NO_GROUP) end
			wanted[#wanted + 1] = { role = mark.role, key = mark.key, name = mark.route:name() }
		end
	end
	return wanted
end

local COMMANDS = {
	import = function(command) return render.render(command.plan) end,
	fader = set_fader,
}

local function obey()
	local this = current_box()
	local command = common.receive(this)
	if not command then return end
	local act = COMMANDS[command.type]
	local ok, result = pcall(function()
		if not act then problem(("%s is not known to this script"):format(tostring(command.type)), "Install the scripts again.") end
		return act(command)
	end)
	if ok then
		common.answer(this, command, { ok = true, strips = common.array(result) })
	else
		common.answer(this, command, { ok = false, error = as_problem(result) })
	end
end

local function announce()
	local strips = common.array()
	for _, mark in ipairs(ours.all()) do
		local gain = mark.route:gain_control():get_value()
		strips[#strips + 1] = { identity = mark.identity, role = mark.role, key = mark.key, name = mark.route:name(),
			gain_db = gain > 1e-6 and 20 * math.log(gain, 10) or -120.0, muted = mark.route:mute_control():muted() }
	end
	common.announce(current_box(), { daw = "ardour", program = M.folder:lower():match("ardour(%d+)") or "", name = Session:name(),
		path = Session:path(), sample_rate = math.floor(Session:nominal_sample_rate()), strips = strips })
end

local DUE = { { every_s = 0.1, act = obey }, { every_s = 0.2, act = M.requests.follow }, { every_s = 0.5, act = M.undo.watch },
	{ every_s = 1.0, act = announce } }
local running, complained = false, nil

-- Called ten times a second. Dialogs and imports let the program go on, so that it may be called while it runs.
function H.poll()
	if running or not M.settings then return end
	running = true
	local now = M.now_s()
	for _, task in ipairs(DUE) do
		if not task.next or now >= task.next then
			task.next = now + task.every_s
			local ok, why = pcall(task.act)
			local what = not ok and as_problem(why)
			if what and complained ~= what.message then -- once: it may come again ten times a second
				complained = what.message
				requests.close_progress()
				M.show_error(what.message, what.hint)
			end
		end
	end
	running = false
end

return H
