ardour {
	["type"] = "EditorHook",
	name = "Stems: link to the daemon",
	license = "MIT",
	author = "revithion-stems",
	description = [[Shows the progress of separations, puts finished stems on their tracks, and obeys commands from other programs.]]
}

function signals ()
	local set = LuaSignal.Set ()
	set:add ({[LuaSignal.LuaTimerDS] = true})
	return set
end

function factory ()
	local stems, broken
	return function ()
		if broken then return end
		if not stems then
			local folder = ARDOUR.user_config_directory (-1) .. "/revithion_stems"
			local chunk, why = loadfile (folder .. "/stems.lua")
			local ok
			if chunk then ok, stems = pcall (chunk, folder) end
			if not ok then
				broken, stems = tostring (why or stems), nil
				print ("Stems:", broken)
				return
			end
		end
		local ok, why = pcall (stems.poll)
		if not ok then print ("Stems:", type (why) == "table" and why.message or why) end
	end
end
