"""The experiment, step by step: each row is done on a real lab, and judged by the evidence."""
