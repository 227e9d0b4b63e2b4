"""What helps to write a task file: a check that says everything that is wrong, and questions that write one."""
