#!/usr/bin/env bash
# packages.sh [DIRECTORY]   build packages of ublk-loop and its snapshotter, and an archive, into DIRECTORY (bin/packages)
#
# The result has the same bytes each time: files have the time of the commit, and the tools are pinned. ARCHES are the
# architectures (this machine's). FORMATS are the formats (deb rpm apk archive). MAINTAINER is whom the packages name. RELEASE is their version; without it, it is the
# tag of the commit, or 0.0.0 with the commit's time.
set -euo pipefail

# nfpm makes all three formats in one program of Go modules. Version 2.46 and later need modules that the proxy does not serve.
nfpm=v2.45.2
cyclonedx=v1.10.0 # makes the list of the modules in a binary (SBOM)

here=$(dirname "$(realpath "$0")")
source=$(realpath "$here/..")
cache=${UBLK_LOOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ublk-loop}
: "${MAINTAINER:=ublk-loop maintainers <noreply@github.com>}" "${ARCHES:=$(go env GOHOSTARCH)}" "${FORMATS:=deb rpm apk archive}"
export LC_ALL=C

git_here() { git -C "$source" -c safe.directory="$source" "$@"; }

# Build the tool of module $1 (package $2 in it, version $3) once into the cache, and print its path.
tool() {
	local name=${2##*/} path
	path=$cache/bin/$name-$3
	if [[ ! -x $path ]]; then
		echo "packages.sh: building $name $3 (once)" >&2
		mkdir -p "$cache/bin"
		GOFLAGS='' GOARCH='' GOBIN=$cache/bin go install "$1/$2@$3" >&2
		mv "$cache/bin/$name" "$path"
	fi
	echo "$path"
}

set_release() {
	local tag
	SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git_here log -1 --format=%ct)}
	tag=$(git_here describe --tags --exact-match 2>/dev/null) || tag=v0.0.0-git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S)
	: "${RELEASE:=${tag#v}}"
	VERSION=${VERSION:-$(git_here describe --tags --always --dirty)}
	export SOURCE_DATE_EPOCH
}

# Build the programs for architecture $1 into $work/bin-$1.
build() {
	CGO_ENABLED=0 GOARCH=$1 go -C "$source" build -trimpath -buildvcs=false \
		-ldflags "-s -w -buildid= -X main.version=$VERSION" -o "$work/bin-$1/ublk-loop" ./cmd/ublk-loop
	CGO_ENABLED=0 GOARCH=$1 go -C "$source/cmd/ublk-loop-snapshotter" build -trimpath -buildvcs=false \
		-ldflags '-s -w -buildid=' -o "$work/bin-$1/ublk-loop-snapshotter" .
}

# Install part $1 of architecture $2 into directory $3.
stage() {
	mkdir -p "$3"
	DESTDIR=$3 PREFIX=/usr BIN=$work/bin-$2 RUN=$work/bin-$(go env GOHOSTARCH)/ublk-loop "$here/install.sh" "$1"
}

# Print what nfpm makes the changelogs of Debian's and rpm's packages of. CHANGELOG.md is in the packages too.
changelog() {
	cat <<YAML
- semver: ${RELEASE/-/\~}
  date: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
  packager: $MAINTAINER
  deb: {urgency: medium, distributions: [unstable]}
  changes: [{note: "See CHANGELOG.md."}]
YAML
}

# Print the contents of an rpm package that are the documents in directory $1 of the stage: nfpm takes no pattern for them.
documents() {
	local file
	for file in "$1"/docs/*; do
		[[ -f $file ]] || continue
		printf '  - {src: "%s", dst: "/usr/share/doc/ublk-loop/docs/%s", type: doc, packager: rpm}\n' "$file" "${file##*/}"
	done
}

# Build package $1, which is part $2 of install.sh, for architecture $3 in format $4.
package() {
	local stage=$work/$1-$3-$4 zsh=share/zsh/site-functions units=yes
	[[ $4 != deb ]] || zsh=share/zsh/vendor-completions
	[[ $4 != apk ]] || units=no # Alpine has no systemd
	ZSHDIR=$zsh UNITS=$units stage "$2" "$3" "$stage"
	if [[ $4 == rpm ]]; then # these are marked as documents, one by one
		mkdir -p "$stage.doc"
		mv "$stage/usr/share/doc/$1" "$stage.doc/top"
		[[ $2 != main ]] || mv "$stage/usr/share/man/man8/ublk-loop.8.gz" "$stage.doc/"
		find "$stage/usr/share" -depth -type d -empty -delete
	fi
	sed "s/PACKAGE/$1/" "$source/packaging/lintian-overrides" >"$stage.lintian"
	find "$stage"* -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	documents "$stage.doc/top" >"$work/documents"
	sed -e "/@DOCUMENTS@/r $work/documents" -e "s,@STAGE@,$stage,; s,@ARCH@,$3,; s,@RELEASE@,$RELEASE,; s,@MAINTAINER@,$MAINTAINER,; s,@CHANGELOG@,$work/changelog," \
		"$source/packaging/$1/nfpm.yaml" >"$work/nfpm.yaml"
	(cd "$source" && "$nfpm_program" package --config "$work/nfpm.yaml" --packager "$4" --target "$target/" >"$work/log") || {
		cat "$work/log" >&2
		return 1
	}
}

# Build an archive for architecture $1 whose files belong below /.
archive() {
	local name=ublk-loop_${RELEASE}_linux_$1 stage=$work/archive-$1
	stage main "$1" "$stage"
	stage snapshotter "$1" "$stage"
	tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu --mtime="@$SOURCE_DATE_EPOCH" -c . |
		gzip -9 -n >"$target/$name.tar.gz"
}

# Write the list of modules in the programs of architecture $1.
sbom() {
	local program
	for program in ublk-loop ublk-loop-snapshotter; do
		"$cyclonedx_program" bin -json -noserial -notimestamp -std -version "$RELEASE" \
			-output "$target/${program}_${RELEASE}_linux_$1.cdx.json" "$work/bin-$1/$program" 2>/dev/null
	done
}

main() {
	local arch format target nfpm_program cyclonedx_program
	target=$(realpath -m "${1:-$source/bin/packages}")
	umask 022
	set_release
	nfpm_program=$(tool github.com/goreleaser/nfpm/v2 cmd/nfpm $nfpm)
	cyclonedx_program=$(tool github.com/CycloneDX/cyclonedx-gomod cmd/cyclonedx-gomod $cyclonedx)
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	rm -rf "$target"
	mkdir -p "$target"
	changelog >"$work/changelog"
	[[ " $ARCHES " == *" $(go env GOHOSTARCH) "* ]] || build "$(go env GOHOSTARCH)" # prints the completions
	for arch in $ARCHES; do
		build "$arch"
		for format in ${FORMATS/archive/}; do
			package ublk-loop main "$arch" "$format"
			package ublk-loop-snapshotter snapshotter "$arch" "$format"
		done
		[[ " $FORMATS " != *" archive "* ]] || archive "$arch"
		sbom "$arch"
	done
	(cd "$target" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
	ls "$target"
}

main "$@"
