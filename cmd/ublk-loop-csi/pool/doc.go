// Package pool keeps volumes and snapshots as files in a directory of the node.
//
//	POOL/lock               locked by the running driver
//	POOL/spare              block for a record if the file system is full
//	POOL/volumes/ID.json    record of a volume
//	POOL/volumes/ID.img     image of the volume
//	POOL/snapshots/ID.json, ID.img
//	POOL/layers/ID.json, ID.img
//
// Where files cannot share blocks, a volume can have layers instead of an image: an image that no
// device writes to, and copy-on-write stores above it. A snapshot then shows one of these layers. The
// record of a volume or snapshot names its upper layer, and that of a store the layer below. Layers
// can be merged: the record of the upper one then names the layer that has its content, and its image
// goes when no device uses it.
//
// A record is written to disk before the effect that it announces: before the image is
// made, before the device is attached, before anything is mounted. A driver that starts
// after a crash therefore finds every effect by reading the records.
package pool
