# Functions of the scripts that render documentation comments; sourced, not run.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# symbol_graph MODULE ACCESS BUILD FOLDER: writes the module's declarations of at least that access level.
symbol_graph() {
  local module=$1 access=$2 build=$3 folder=$4
  [[ -f $build/Modules/$module.swiftmodule ]] || die "$module is not built in $build: run tools/test first"
  local includes=(-I "$root/Sources/CLinuxURing" -I "$root/Sources/CPCRE2" -I "$root/Sources/CUTF8Proc" -I "$root/Sources/CXXHash" -I "$build/Modules")
  # C modules: ours, and those of what the server is made of.
  for map in "$build"/*C*.build/module.modulemap "$root"/.build/checkouts/swift-{atomics,nio,numerics,system}/Sources/*/include/module.modulemap; do
    [[ ! -f $map ]] || includes+=(-Xcc "-fmodule-map-file=$map")
  done
  mkdir -p "$folder"
  swift symbolgraph-extract -module-name "$module" -target "$(uname -m)-unknown-linux-gnu" "${includes[@]}" \
    -output-dir "$folder" -minimum-access-level "$access" -skip-synthesized-members
  rm -f "$folder"/*@*.symbols.json
}

# render MODULE GRAPHS ARCHIVE [ARGUMENT OF docc convert...]: prints links that lead nowhere and then fails.
render() {
  local module=$1 graphs=$2 archive=$3 log
  shift 3
  log=$(docc convert "$@" --additional-symbol-graph-dir "$graphs" --fallback-display-name "$module" \
    --fallback-bundle-identifier "$module" --output-path "$archive" 2>&1) || { printf '%s\n' "$log" >&2; return 1; }
  ! grep -E "doesn't exist|is ambiguous" <<<"$log" | sed "s/^/$module: /" >&2
}
