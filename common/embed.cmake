# Writes files as C byte arrays, each named for its file:
# cmake -DOUT=scripts.c "-DFILES=a.lua;b.lua" -DPREFIX=script_ -P embed.cmake
set(text "/* Made by embed.cmake. */\n")
foreach(file ${FILES})
  get_filename_component(name ${file} NAME_WE)
  set(name ${PREFIX}${name})
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND text "extern const char ${name}[];\nconst char ${name}[] = {${bytes}0};\n")
endforeach()
file(WRITE ${OUT} "${text}")
