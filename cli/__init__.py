"""The command `tfvamp`. No module here imports TensorFlow or tfvamp before a command runs."""
