# Makes the one header of a provider from outside of the tree's headers, and the linker's list of
# what it declares: the worker exports these functions, also those that it does not call itself.
# cmake -DOUT=provider.h -DLINK=abi.ld "-DHEADERS=a.h;b.h" -P abi.cmake
set(text "/* Made by abi.cmake of the headers that are named below. What a provider from outside may use. */\n")
string(APPEND text "#ifndef ORCHESTRATOR_PROVIDER_H\n#define ORCHESTRATOR_PROVIDER_H\n")
foreach(header ${HEADERS})
  file(READ ${header} part)
  string(REGEX MATCH "#ifndef ([A-Z0-9_]+_H)\n#define [A-Z0-9_]+_H\n" guard "${part}")
  if(NOT guard)
    message(FATAL_ERROR "${header} has no include guard")
  endif()
  string(REPLACE "${guard}" "" part "${part}")
  string(REGEX REPLACE "\n#endif\n$" "\n" part "${part}")
  string(REGEX REPLACE "#include \"[^\"\n]*\"\n" "" part "${part}")
  string(APPEND text "\n/* --- ${header} --- */\n\n${part}")
endforeach()
string(REGEX REPLACE "\n\n\n+" "\n\n" text "${text}")
string(REGEX REPLACE "\n+$" "\n" text "${text}")

# Declarations begin at the line's start; members and continued lines are indented.
string(REGEX MATCHALL "\n(const |struct |enum |unsigned |void|int|bool|char|double|size_t)[^\n(=]*[ *][a-z0-9_]+\\("
       declarations "${text}")
set(link "")
foreach(declaration ${declarations})
  string(REGEX MATCH "([a-z0-9_]+)\\($" found "${declaration}")
  string(APPEND link "--undefined=${CMAKE_MATCH_1}\n--export-dynamic-symbol=${CMAKE_MATCH_1}\n")
endforeach()
if(link STREQUAL "")
  message(FATAL_ERROR "no declaration was found in ${HEADERS}")
endif()
file(WRITE ${LINK} "${link}")

string(APPEND text "
/* --- what the shared object exports --- */

/* `abi` is the PROVIDER_ABI of the worker that asks. NULL when the provider cannot serve it. */
__attribute__((visibility(\"default\"))) const struct provider *orchestrator_provider(uint32_t abi);

#endif
")
file(WRITE ${OUT} "${text}")
