# ziglang is a wheel: `python -m ziglang c++` is clang with glibc's and libc++'s headers for any target. PYTHON names the interpreter that has it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES PYTHON)
find_program(PYTHON NAMES python python3 REQUIRED)
set(CMAKE_CXX_COMPILER "${PYTHON};-m;ziglang;c++;-target;aarch64-linux-gnu.2.28")
set(CMAKE_AR "${CMAKE_CURRENT_LIST_DIR}/zig-ar" CACHE FILEPATH "" FORCE)
set(CMAKE_RANLIB "${CMAKE_CURRENT_LIST_DIR}/zig-ranlib" CACHE FILEPATH "" FORCE)
