// Package daemon contains the processes that serve devices, and the one way to start
// them.
//
//	role      process                                          started by
//	single    serves one device                                add, recover
//	many      serves many devices, behind a socket             serve, upgrade, super
//	super     starts a many, and another after a crash         serve
//	apart     serves the requests of devices, in a sandbox     single, many
//	metrics   answers the clients of --metrics, in a sandbox   many
//	scan      looks for partitions for a foreground server     single
//	claimed   looks whether a device is mounted                single
//	write     writes the dirty pages of a device               single, many
//	unused    stops devices that are not in use                many
//
// A process plays a role if its first argument is the role's name. Its second argument is
// the number of a descriptor with a message, except for roles in a sandbox (package apart).
// The message consists of a task as JSON, and a table of the other descriptors by name, each
// with its number in the sending process. The same message serves a new process and a program
// that replaces this one.
//
// Package confine decides the privileges of a role. Servers open devices through package
// loop. The roles scan, claimed, write and unused exist because a server must not open its own devices.
package daemon
