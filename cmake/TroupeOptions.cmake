# Compiler settings that every target of the project shares, in one interface target.
add_library(troupe_options INTERFACE)
target_compile_options(troupe_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror
  -Wno-restrict  # g++ 12 warns of overlaps inside std::string that are not there (GCC bug 105651)
  -ffp-contract=off  # the same bits at every instruction-set level: no fused multiply-add but where asked for
)
target_include_directories(troupe_options INTERFACE ${CMAKE_SOURCE_DIR})

if(TROUPE_SANITIZE)
  target_compile_options(troupe_options INTERFACE -fsanitize=${TROUPE_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(troupe_options INTERFACE -fsanitize=${TROUPE_SANITIZE})
  if(TROUPE_SANITIZE MATCHES "undefined")
    target_compile_options(troupe_options INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()

find_program(TROUPE_CCACHE ccache)
if(TROUPE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${TROUPE_CCACHE})
endif()

find_program(TROUPE_MOLD mold)
if(TROUPE_MOLD)
  target_link_options(troupe_options INTERFACE -fuse-ld=mold)
endif()

# troupe_library(<name> <sources>...): a static library of the project, one per folder.
function(troupe_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC troupe_options)
endfunction()
