package main

import "slices"

// rows are all calls, in order. None has a side effect but on the memory it is
// given, none waits or allocates, and what they read stays as it is from the
// call to the dump. Functions whose prototype changed have a row for each: the
// one whose arguments are too few or too many is left out.
func rows(o *objects) []row {
	return slices.Concat(
		objectRows(), stringRows(), parseRows(), formatRows(), numberRows(), bitRows(), sumRows(), timeRows(),
		memoryRows(), codeRows(), treeRows(), taskRows(o), userRows(), fileRows(), groupRows(), netRows(),
		traceRows(), bpfRows(o), deviceRows(), acpiRows(),
	)
}

// objectRows find objects that later rows take.
func objectRows() []row {
	return []row{
		call("find_vpid", 1).as("pid1"), call("find_vpid", 2).as("pid2"), call("find_task_by_vpid", 1).as("task1"), call("find_task_by_vpid", 2).as("task2"),
		call("__dev_get_by_name", initNet, "lo").as("lo"),
	}
}
