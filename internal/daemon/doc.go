// Package daemon has the processes that serve devices, and the one way to start them.
//
//	role      process                                          started by
//	single    serves one device                                add, recover
//	many      serves many devices, behind a socket             serve, upgrade, supervise
//	scan      looks for partitions for a foreground server     single
//	unused    stops devices that nobody uses                   many
//
// The supervisor (serve --supervise) is no role: it is the process of serve itself.
//
// A process plays a role if its first argument is the role's name. Its second argument
// is the number of a descriptor with a message: a task as JSON, and a table of the other
// descriptors by name, each with the number that it has in the process that passes it.
// The same message serves a new process and a program that takes this one's place, and
// would serve a part of a server that runs with other privileges than the rest.
//
// Which privileges a role runs with is package confine's. Servers open devices through
// package loop; scan and unused exist because a server must not open its own.
package daemon
