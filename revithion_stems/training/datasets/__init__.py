"""Where training material comes from. Every kind ends as multitracks: songs whose stems can be read anywhere."""
