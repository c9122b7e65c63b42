"""What every service that runs a model on texts needs: lanes of threads, batches, sessions of ONNX Runtime, several models side by side."""
