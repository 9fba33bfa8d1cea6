#!/usr/bin/env bash
# golden.sh: writes golden.txt, the trees that veritysetup (cryptsetup 2.6.1) makes of the output of seq, for the tests.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")"
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
uuid=00112233-4455-6677-8899-aabbccddeeff

# Print a case: hash, data block size, hash block size, number of data blocks, salt; then the root hash and the SHA-256 of
# the file with superblock and tree.
one() {
	local size=$(($2 * $4)) hash=$directory/hash root=$directory/root
	rm -f "$hash"
	seq $((size / 2 + 1)) | head -c "$size" >"$directory/data" || true # head ends before seq
	veritysetup format "$directory/data" "$hash" --hash "$1" --data-block-size "$2" --hash-block-size "$3" \
		--salt "$5" --uuid $uuid --root-hash-file "$root" >"$directory/out" 2>&1 || {
		cat "$directory/out" >&2
		exit 1
	}
	echo "$1 $2 $3 $4 $5 $(<"$root") $(sha256sum <"$hash" | cut -d ' ' -f 1)"
}

main() {
	local n
	local salt=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
	for n in 1 2 127 128 129 255 257; do # 128 digests in a hash block
		one sha256 4096 4096 $n $salt
	done
	for n in 1 2 15 16 17 255 256 257 4095 4096 4097; do # 16 digests
		one sha256 512 512 $n $salt
		one sha1 512 512 $n -
	done
	for n in 1 7 8 9 63 64 65 511 512 513; do # 8 digests
		one sha512 512 512 $n 00
	done
	one sha1 4096 4096 129 -
	one sha512 4096 4096 65 $salt$salt$salt$salt$salt$salt$salt$salt
	one sha256 4096 1024 33 "${salt:0:62}"
	one sha256 1024 4096 129 -
	one sha256 512 65536 2049 $salt
	one sha256 65536 512 17 $salt
	one sha512 524288 524288 2 00
	one sha1 524288 512 3 $salt
	one sha1 512 524288 16385 $salt
}

main >golden.txt
