// Package basemark records in a file which stores need its contents: it is the origin of
// their snapshots, so a write to it would change what they show. The record is an extended
// attribute, user.ublk-loop.stores, with the UUIDs of the stores. It outlives a reboot.
//
// A disk has no such attribute, and neither has a file on a file system without extended
// attributes.
package basemark
