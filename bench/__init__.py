"""The harness: configs become cells, cells become results, results become tables.

Data flows one way: YAML -> typed config -> plan -> cells -> checkpoint -> Result -> MLflow -> report and record.
"""
