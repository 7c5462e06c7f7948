# The CUDA toolkit, and how device code is compiled. Binaries for sm_80 (also sm_86, sm_89), sm_90 and sm_100, and PTX
# for what comes after; -DTROUPE_CUDA_ARCHITECTURES=native builds for the GPU of this machine alone.
set(TROUPE_CUDA_ARCHITECTURES "80-real;90-real;100-real;100-virtual" CACHE STRING "What CUDA code is built for")
set(CMAKE_CUDA_ARCHITECTURES ${TROUPE_CUDA_ARCHITECTURES})
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_package(CUDAToolkit 13 REQUIRED)  # an older compiler is refused here, in words
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # CUDA::cudart is linked by name
find_package(CUDAToolkit 13 REQUIRED)

# NCCL adds the sums of several GPUs; without it they go by way of the host.
find_path(NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
if(NCCL_INCLUDE AND NCCL_LIBRARY)
  set(TROUPE_NCCL ON)
endif()
message(STATUS "NCCL: ${NCCL_LIBRARY}")

# cuDNN, from 9.10 on, has fused attention; without it, and for what it has no engine for, there are kernels of our own.
find_path(CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
if(CUDNN_INCLUDE AND CUDNN_LIBRARY)
  file(STRINGS ${CUDNN_INCLUDE}/cudnn_version.h CUDNN_VERSION REGEX "define CUDNN_(MAJOR|MINOR) ")
  string(REGEX REPLACE "[^0-9]*([0-9]+)[^0-9]*([0-9]+).*" "\\1.\\2" CUDNN_VERSION "${CUDNN_VERSION}")
  if(CUDNN_VERSION VERSION_GREATER_EQUAL 9.10)
    set(TROUPE_CUDNN ON)
  else()
    set(CUDNN_REFUSAL " is too old and not used: attention needs 9.10")
  endif()
endif()
message(STATUS "cuDNN: ${CUDNN_LIBRARY} ${CUDNN_VERSION}${CUDNN_REFUSAL}")

# troupe_cuda_kernels(<target> <sources>...): adds the sources' device code to <target>. --fmad=false, -ftz=true and
# correctly rounded division and root: arithmetic rounds as on a CPU stream.
function(troupe_cuda_kernels target)
  add_library(${target}_kernels OBJECT ${ARGN})
  target_include_directories(${target}_kernels PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(${target}_kernels PRIVATE --expt-relaxed-constexpr --fmad=false -ftz=true -prec-div=true
    -prec-sqrt=true --Werror all-warnings -Xptxas=-v)
  set(launcher ${CMAKE_SOURCE_DIR}/cmake/keep_resources)
  if(TROUPE_CCACHE)
    list(APPEND launcher ${TROUPE_CCACHE})
  endif()
  set_target_properties(${target}_kernels PROPERTIES CUDA_COMPILER_LAUNCHER "${launcher}")
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_kernels>)
endfunction()
