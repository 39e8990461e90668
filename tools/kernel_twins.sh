# Builds the programs of Tests/CKernelTwins; sourced by test-kernels and count-kernels, not run.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
twins=$root/.build/kernel-twins
arm_flags=(--target=aarch64-linux-gnu -isystem /usr/aarch64-linux-gnu/include)

need_arm_packages() { need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; }

# build_twins NAME LINKER FLAG...: compiles what is out of date, two files at a time, with the Swift
# toolchain's clang, and links .build/kernel-twins/NAME/twins.
build_twins() {
  local folder=$twins/$1 linker=$2 file object newest
  shift 2
  mkdir -p "$folder"
  newest=$(find "$root/Sources/CKernels" "$root/Tests/CKernelTwins" -name '*.h' -o -name '*.inc' |
    xargs ls -t | head -1)
  for file in "$root"/Sources/CKernels/ck_{codebooks,planes,words,cpu,interleave,kernels,matmul,neuron,scan,vector}.c \
    "$root"/Tests/CKernelTwins/{main,support,products,vectors,attention,scans,counts}.c; do
    object=$folder/$(basename "$file" .c).o
    [[ $object -nt $file && $object -nt $newest ]] && continue
    printf '%s\0%s\0' "$file" "$object"
  done | xargs -0 -r -n 2 -P 2 sh -c 'flags=$1; file=$2; object=$3; exec $flags -c "$file" -o "$object"' - \
    "clang -std=c17 -Wall -Wextra -Werror -ffp-contract=off -I$root/Sources/CKernels/include $*"
  $linker -o "$folder/twins" "$folder"/*.o -lm
}
