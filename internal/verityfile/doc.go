// Package verityfile makes and checks hash trees of dm-verity in files and on
// disks, as veritysetup(8) does. The superblock and the tree follow the data in the
// image itself, or are in a file of their own.
package verityfile
