"""Stems in DAWs: one plan of tracks and buses, rendered into sessions that run and into project files."""
