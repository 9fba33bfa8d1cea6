// Package apart runs the process that serves the requests of a device in a sandbox, and the messages
// between that process and the server that controls the device.
//
//	server                                process
//	Start: starts the process        ──>  locks its memory
//	                                 <──  is prepared
//	removes its files (sandbox)      ──>
//	                                 <──  has entered the sandbox
//	Serve: work, descriptors, key    ──>  makes the rings, fetches all tags
//	                                 <──  serves, or an error
//	Settle                           ──>  gives back memory
//	                                 <──  has found a wrong block, or that a store is full
//	Ask: about the stores            ──>  forks, merges, counts
//	                                 <──  an answer with the number of the request
//	                                 <──  the queues have ended, or an error
//
// The process can ask for nothing. It can only report, each time with an error or without. A
// report after Serve that is neither a finding nor an answer says that the queues have ended. The server
// then kills the process if it does not end by itself. If the server ends for any reason, the kernel kills the process.
package apart
