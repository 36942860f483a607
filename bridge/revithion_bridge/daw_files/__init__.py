"""Writers that render a plan into project files."""
