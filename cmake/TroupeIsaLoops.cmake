# troupe_isa_loops(<target> <sources>...): compiles the sources once for each instruction-set level, with TROUPE_ISA
# set to the level's name, which is also the namespace their functions live in, and adds the objects to <target>.
# Such sources define nothing outside that namespace and include no header with inline functions of its own outside
# it: the linker could keep the copy of a higher level for code that runs on a lower machine.
function(troupe_isa_loops target)
  set(flags_v2 -march=x86-64-v2)
  set(flags_v3 -march=x86-64-v3)
  set(flags_v4 -march=x86-64-v4 -mavx512bf16 -mavx512vnni -mprefer-vector-width=512)
  if(TROUPE_EMULATE_AVX512)
    set(flags_v4 ${flags_v3} -include kernels/cpu/loops/emulated_avx512.hpp)
  endif()
  set(optimise -O3)
  if(TROUPE_SANITIZE MATCHES "undefined")
    set(optimise -O1)  # with checks between them, GCC takes minutes to optimise narrow registers
  endif()
  foreach(level v2 v3 v4)
    set(objects ${target}_loops_${level})
    add_library(${objects} OBJECT ${ARGN})
    target_compile_definitions(${objects} PRIVATE TROUPE_ISA=${level})
    target_compile_options(${objects} PRIVATE ${flags_${level}} ${optimise} -fno-math-errno -fno-trapping-math
      -fno-var-tracking-assignments
      -Wno-psabi -Wno-maybe-uninitialized -Wno-uninitialized)  # GCC 12 warns about its own avx512fintrin.h
    target_link_libraries(${objects} PRIVATE troupe_options)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
  endforeach()
endfunction()
