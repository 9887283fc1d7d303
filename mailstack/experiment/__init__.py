"""The course's experiment: each step runs on a real lab, and is judged by its evidence."""
