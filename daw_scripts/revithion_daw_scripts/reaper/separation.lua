-- From the selection to the stems in the project: asks the daemon, shows how far it is, renders the plan.

local M = ...
local common, selection, progress, render = M.common, M.selection, M.progress, M.render
local S = {}

local UNHEARD_S = 3 -- without any sign the daemon is started
local START_S = 20 -- without any sign after that we give up
local STILL_S = 60 -- a daemon that died in the middle is started again
local OK, OK_CANCEL, PRESSED_OK = 0, 1, 1
local REINSTALL = "Run `revithion-stems daw test reaper` in a terminal; it says what is wrong."

function S.complain(message, hint)
	reaper.ShowMessageBox(message .. (hint and hint ~= "" and "\n\n" .. hint or ""), "Separate to stems", OK)
end

-- A word of a command line. Whether a shell reads it or REAPER itself: plain words need no quotes, and double quotes are
-- known to all; what would still be special inside them is rare in a path.
local function command_word(text, windows)
	if text:find("^[%w%._/+=:@,-]+$") then return text end
	if not windows and not text:find('["$`\\]') then return '"' .. text .. '"' end
	return common.quote(text, windows)
end

local function start_daemon(settings)
	local words, windows = {}, reaper.GetOS():find("^Win") ~= nil
	for index, word in ipairs(settings.start) do words[index] = command_word(word, windows) end
	reaper.ExecProcess(table.concat(words, " "), -1) -- does not wait
end

-- What the user reads while the daemon has said nothing yet.
local function waiting(work) return work.started and "Starting the service…" or "Waiting for the service…" end

local function finish(work, message, hint)
	work.over = true
	common.forget(work.box, work.id)
	if message then S.complain(message, hint) end
end

local function import(work, plan)
	if not reaper.ValidatePtr(work.project, "ReaProject*") then
		return finish(work, "The project was closed while it was being separated.", "Open it and separate again: it is quick now.")
	end
	local strips, problem = render.render(work.project, plan)
	if strips then return finish(work) end
	finish(work, problem.message, problem.hint)
end

-- One look at one request.
local function look(work, now)
	local status = common.status(work.box, work.id)
	if not status then
		if work.cancelled then
			if now - work.cancelled > UNHEARD_S then finish(work) end
		elseif not work.started and (now - work.since > UNHEARD_S or not common.connection(work.box.settings)) then
			work.started = now
			start_daemon(work.box.settings)
		elseif work.started and now - work.started > START_S then
			finish(work, "The service that separates did not start.", REINSTALL)
		end
		work.text = work.cancelled and "Cancelling…" or waiting(work)
		return
	end
	local state = status.state
	if state == "done" then return import(work, common.get(status, "plan")) end
	if state == "cancelled" then return finish(work) end
	if state == "failed" then
		local problem = common.get(status, "error") or {}
		return finish(work, common.get(problem, "message") or "The separation failed.", common.get(problem, "hint"))
	end
	local fraction, text = common.get(status, "fraction") or 0, common.get(status, "text") or state
	if fraction ~= work.fraction or text ~= work.said then work.changed, work.said = now, text end
	work.fraction, work.text = fraction, work.cancelled and "Cancelling…" or text
	if state ~= "queued" and now - work.changed > STILL_S then
		work.changed = now
		start_daemon(work.box.settings) -- if one runs after all, this one ends at once
	end
end

local function follow(works)
	local window = progress.open("Separate to stems", #works)
	local function tick()
		local now, running = reaper.time_precise(), {}
		for _, work in ipairs(works) do
			if not work.over then look(work, now) end
			if not work.over then running[#running + 1] = work end
		end
		if #running == 0 then return progress.close(window) end
		if progress.update(window, works) then
			for _, work in ipairs(running) do
				common.cancel(work.box, work.id)
				work.cancelled = now
			end
		end
		reaper.defer(tick)
	end
	-- A script that is ended takes no result any more; the service finishes, and the next request gets it at once.
	reaper.atexit(function()
		for _, work in ipairs(works) do
			if not work.over then common.forget(work.box, work.id) end
		end
	end)
	tick()
end

-- Separates what is selected. `options` has preset, model and align_to; each may be empty.
function S.run(options)
	local settings, why = common.settings(M.folder)
	if not settings then return S.complain(why) end
	local project, path, box_path = selection.project()
	local requests, left_out = selection.requests(project, path, {
		preset = options.preset or "",
		model = options.model or "",
		align_to = options.align_to ~= "" and options.align_to or "item",
	})
	local problems = table.concat(left_out, "\n")
	if #requests == 0 then
		local message = problems ~= "" and problems or "Nothing is selected that could be separated."
		return S.complain(message, "Select audio items, or a track that has some.")
	end
	if problems ~= "" then
		local question = problems .. "\n\nSeparate the others?"
		if reaper.ShowMessageBox(question, "Separate to stems", OK_CANCEL) ~= PRESSED_OK then return end
	end
	local box, now, works = common.open(settings, "reaper", box_path), reaper.time_precise(), {}
	for _, request in ipairs(requests) do
		local id, problem = common.request(box, request)
		if not id then
			S.complain("Can't write into " .. settings.mailboxes .. ": " .. tostring(problem), REINSTALL)
			break
		end
		local title = request.track.name ~= "" and request.track.name or "Track"
		works[#works + 1] =
			{ id = id, box = box, project = project, title = title, text = "", fraction = 0, since = now, changed = now }
	end
	if #works > 0 then follow(works) end
end

return S
