// Package driver answers the calls of the container storage interface (CSI) on one node.
// It keeps volumes in a pool, gets their devices from ublk-loop serve, and mounts them.
//
// The same process answers the calls for the controller and those for the node, because
// only the node of a volume can make it, grow it and copy it.
package driver
