# Writes the Lua files as C byte arrays: cmake -DOUT=scripts.c "-DSCRIPTS=a.lua;b.lua" -P embed.cmake
set(text "/* Made from the Lua files of common/scripts by embed.cmake. */\n")
foreach(script ${SCRIPTS})
  get_filename_component(name ${script} NAME_WE)
  file(READ ${script} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND text "extern const char script_${name}[];\nconst char script_${name}[] = {${bytes}0};\n")
endforeach()
file(WRITE ${OUT} "${text}")
